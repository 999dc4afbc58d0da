"""nEMO: 90 Polish sentences by nine actors in six emotions (Christop 2024).

Layout, as on GitHub (amu-cai/nEMO): samples/EB0_anger_1.wav (speaker, emotion, sentence) and data.tsv with the columns file_id, emotion,
raw_text, normalized_text, speaker_id, gender, age.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from undertone.corpora.native.base import NativeCorpus, Opened, Skip, Utterance, gender_of, table
from undertone.corpora.plan import Spoken

_COLUMNS = ("file_id", "emotion", "raw_text", "speaker_id", "gender", "age")


class NemoCorpus(NativeCorpus):
    """Settings of nEMO. Speakers are EB0, IC0, KD0 and so on; `labels` is the label table, .tsv or .csv."""

    kind: Literal["nemo"] = "nemo"
    labels: str = "data.tsv"
    language: str | None = "pl"
    licence: str | None = "CC BY-NC-SA 4.0"

    def _open(self) -> Opened:
        rows = table(self.path / self.labels, _COLUMNS, what="the label table of nEMO, which lies beside its folder samples/")
        known = {Path(row["file_id"]).stem: row for row in rows}

        def describe(file: PurePosixPath) -> Utterance:
            row = known.get(file.stem)
            if row is None:
                raise Skip("no_label", f"{self.labels} has no row for {file.stem}")
            spoken = Spoken(
                speaker=row["speaker_id"],
                text=row["raw_text"],
                emotion=self._emotion(row["emotion"]),
                gender=gender_of(row["gender"]),
                age=float(row["age"]) if row["age"].isdecimal() else None,
            )
            return Utterance(key=file.stem, spoken=spoken)

        return Opened(describe=describe, labelled=known)
