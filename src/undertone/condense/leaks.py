"""Leaks: what a test could be passed by without listening. Speakers and recordings on both sides of a split, labels that sentences tell.

(How far the mood of a whole clip answers a question about part of it is `evaluate.benchmark.leakage`.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from undertone.condense.nested import in_one_piece, labels_in, spread, time_held
from undertone.corpora.plan import speakers_on_both_sides
from undertone.errors import DataError
from undertone.lexicon import tokens
from undertone.records import Clip, Recording
from undertone.tables import Table


def check_splits(corpus: Table[Recording], *clips: Table[Clip]) -> None:
    """Refuse a split that is not one: a speaker (as people named them) or a recording in more than one of train, dev and test.

    Rows without a split count on no side.

    Args:
        corpus: The recordings.
        clips: Tables of clips that are used together, for training or as a benchmark.

    Raises:
        DataError: Names the speakers and recordings, and where they stand.
    """
    rows = corpus.arrow(columns=["id", "split", "references"])
    lists = in_one_piece(rows["references"])
    speaker = pc.struct_field(lists.flatten(), "speaker")
    where = in_one_piece(rows["split"]).take(pc.list_parent_indices(lists))
    recordings = [(rows["id"], rows["split"])]
    for table in clips:
        held = table.arrow(columns=["recording_id", "split"])
        recordings.append((held["recording_id"], held["split"]))
    problems = _crossing("speaker", [(speaker, where)]) + _crossing("recording", recordings)
    if problems:
        raise DataError(
            f"the split leaks: {'; '.join(problems)}. Hold out whole speakers in the corpus' settings "
            "(hold_out: {test_speakers: [...]}, or partition: speaker where the corpus has it) or mend the manifest, then start over with "
            "--redo corpus"
        )


def _crossing(what: str, columns: Iterable[tuple[pa.Array, pa.Array]]) -> list[str]:
    """What stands in more than one split, for a message."""
    splits: dict[str, set[str]] = {}
    for names, where in columns:
        for name, split in pl.DataFrame(pa.table({"name": names, "split": where})).drop_nulls().unique().iter_rows():
            splits.setdefault(split, set()).add(name)
    both = speakers_on_both_sides(splits)
    shown = ", ".join(f"{name} in {' and '.join(there)}" for name, there in list(both.items())[:5])
    more = f" and {len(both) - 5} more" if len(both) > 5 else ""
    return [f"{len(both)} {what}{'s' if len(both) > 1 else ''} on both sides ({shown}{more})"] if both else []


class TranscriptLeak(BaseModel):
    """How far the label of an utterance is told by which sentence is spoken. Shares of utterances, 0..1; None without utterances.

    Attributes:
        source: The corpus; None for all together.
        utterances: Those with a transcript and a label.
        sentences: Different ones; `repeated` utterances have a sentence that is spoken more than once.
        majority: Right if every sentence is given the label that it has most often. A sentence that is spoken once is always right: this
            is an upper bound.
        leave_one_out: Right if each utterance is given the label that its sentence has most often elsewhere, and where it is spoken nowhere
            else the one that is most frequent elsewhere. Where every sentence is spoken in every emotion equally often this is *below*
            chance, since the one left out is then the rarest.
        chance: Right if every utterance is given the most frequent label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    source: str | None
    utterances: int
    sentences: int
    repeated: int
    majority: float | None
    leave_one_out: float | None
    chance: float | None

    def line(self) -> str:
        """The measurement in a sentence."""
        if self.majority is None or self.leave_one_out is None or self.chance is None:
            return f"{self.source or 'all corpora'}: no utterance has both a transcript and a label of {self.attribute}"
        return (
            f"{self.source or 'all corpora'}: {self.attribute} told by the sentence alone: leave-one-out {self.leave_one_out:.1%}, "
            f"majority {self.majority:.1%}, chance {self.chance:.1%} ({self.utterances} utterances of {self.sentences} sentences, "
            f"{self.repeated} of them spoken more than once)"
        )


def transcript_leakage(corpus: Table[Recording], attribute: str = "emotion") -> tuple[TranscriptLeak, ...]:
    """Measure by human labels how far sentences tell labels, in each source and, where there are several, in all together.

    Sentences are the same where their words are, case and punctuation aside; ties go to the label that comes first in the alphabet.
    """
    rows = corpus.arrow(columns=["source", "references"])
    lists = in_one_piece(rows["references"])
    flat = lists.flatten()
    held = time_held(labels_in(pc.struct_field(flat, "labels"), attribute)).unique("row", keep="first", maintain_order=True)
    labels = spread(held, "row", "category", len(flat)).to_pylist()
    texts = pc.struct_field(flat, "transcript").to_pylist()
    sources = in_one_piece(rows["source"]).take(pc.list_parent_indices(lists)).to_pylist()
    told: dict[str, Counter[tuple[str, str]]] = {source: Counter() for source in sorted(set(sources))}
    for source, text, label in zip(sources, texts, labels, strict=True):
        if label is not None and (sentence := " ".join(tokens(text or ""))):
            told[source][sentence, label] += 1
    found = [sentence_leak(counts, attribute=attribute, source=source) for source, counts in told.items()]
    if len(told) > 1:
        together: Counter[tuple[str, str]] = Counter()
        for counts in told.values():
            together.update(counts)
        found.append(sentence_leak(together, attribute=attribute, source=None))
    return tuple(found)


def sentence_leak(counts: Mapping[tuple[str, str], int], *, attribute: str, source: str | None) -> TranscriptLeak:
    """The measurement for one corpus.

    Args:
        counts: Utterances by sentence and label.
        attribute: What the labels are of.
        source: The corpus' name.
    """
    by_sentence: dict[str, dict[str, int]] = {}
    overall: Counter[str] = Counter()
    for (sentence, label), count in sorted(counts.items()):
        by_sentence.setdefault(sentence, {})[label] = count
        overall[label] += count
    utterances = overall.total()
    left_out = sum(
        count
        for labels in by_sentence.values()
        for label, count in labels.items()
        if label == (_best_without(labels, label) or _best_without(overall, label))
    )
    by_majority = sum(max(labels.values()) for labels in by_sentence.values())
    return TranscriptLeak(
        attribute=attribute,
        source=source,
        utterances=utterances,
        sentences=len(by_sentence),
        repeated=sum(total for labels in by_sentence.values() if (total := sum(labels.values())) > 1),
        majority=by_majority / utterances if utterances else None,
        leave_one_out=left_out / utterances if utterances else None,
        chance=max(overall.values()) / utterances if utterances else None,
    )


def _best_without(labels: Mapping[str, int], own: str) -> str | None:
    """The most frequent label when one utterance labelled `own` is left out; None where nothing is left."""
    left = {label: count - (label == own) for label, count in labels.items()}
    best = min(left, key=lambda label: (-left[label], label))
    return best if left[best] > 0 else None
