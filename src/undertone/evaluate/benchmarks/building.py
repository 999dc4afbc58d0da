"""From rows of a benchmark to recordings, clips and pairs, with an account of what is left out.

Reasons: `no_question`, `no_answer`, `no_audio` (the row has none), `bad_audio` (it cannot be decoded), `duplicate` (the same question about the
same sound with the same answer stands in an earlier row), and those of a definition.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from undertone import audio, tables
from undertone.corpora.folder import AUDIO_SUFFIXES
from undertone.errors import AudioError, DataError
from undertone.evaluate.benchmarks.protocol import Content
from undertone.paths import Location
from undertone.records import Clip, Kind, Loss, QAPair, Recording, Segment

_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3"}


@dataclass(frozen=True)
class Asked:
    """What a row asks. `label` is the right class where there is one, `attribute` what it is a class of."""

    kind: Kind
    question: str
    answer: str
    attribute: str | None = None
    label: str | None = None


@dataclass
class Builder:
    """Collects rows: a sound that several rows ask about becomes one recording and one clip, the whole of it."""

    source: str
    out: Location
    licence: str | None = None
    language: str | None = None
    recordings: dict[str, Recording] = field(default_factory=dict)
    clips: dict[str, Clip] = field(default_factory=dict)
    pairs: dict[str, QAPair] = field(default_factory=dict)
    dropped: list[Loss] = field(default_factory=list)
    _of_file: dict[str, str] = field(default_factory=dict)

    def drop(self, row: str, reason: str, detail: str) -> None:
        """Leave a row out."""
        self.dropped.append(Loss(row_id=row, stage="benchmark", reason=reason, detail=detail))

    def sound(self, row: str, sound: bytes | Location | None, *, name: str = "", transcript: str | None = None) -> Clip | None:
        """The clip of a row's sound; None, and the row is dropped, where there is none or it cannot be decoded."""
        if sound is None:
            self.drop(row, "no_audio", "neither bytes nor a path in the column of the sound")
            return None
        try:
            file = self._stored(sound, name) if isinstance(sound, bytes) else sound
            if str(file) not in self._of_file:
                self._of_file[str(file)] = self.heard(self._recording(file, transcript)).id
            return self.clips[self._of_file[str(file)]]
        except AudioError as error:
            self.drop(row, "bad_audio", str(error))
            return None

    def heard(self, recording: Recording) -> Clip:
        """The clip that is a whole recording; of two recordings with the same bytes the first stays."""
        kept = self.recordings.setdefault(recording.id, recording)
        segments = kept.references or (Segment(recording_id=kept.id, start_ms=0, end_ms=max(1, kept.duration_ms)),)
        clip = Clip(
            recording_id=kept.id,
            uri=kept.uri,
            source=kept.source,
            language=kept.language,
            licence=kept.licence,
            split="test",
            start_ms=0,
            end_ms=kept.duration_ms,
            segments=segments,
        )
        return self.clips.setdefault(clip.id, clip)

    def ask(self, row: str, clip: Clip, asked: Asked) -> None:
        """Ask a row's question about its clip."""
        for reason, text in (("no_question", asked.question), ("no_answer", asked.answer)):
            if not text.strip():
                self.drop(row, reason, f"the row has {'nothing' if not text else 'only spaces'} there")
                return
        pair = QAPair(
            clip_id=clip.id,
            recording_id=clip.recording_id,
            split="test",
            source=self.source,
            kind=asked.kind,
            question=asked.question.strip(),
            answer=asked.answer.strip(),
            label_attribute=asked.attribute,
            label=asked.label,
            generator=f"benchmark:{self.source}",
        )
        if pair.id in self.pairs:
            self.drop(row, "duplicate", "the same question about the same sound with the same answer")
        else:
            self.pairs[pair.id] = pair

    def content(self, *, where: Location, notes: tuple[str, ...] = ()) -> Content:
        """All that was collected, without recordings that nothing is asked about.

        Raises:
            DataError: No question is left.
        """
        if not self.pairs:
            shown = "; ".join(f"{one.row_id}: {one.reason} ({one.detail})" for one in self.dropped[:3])
            raise DataError(f"{where} holds no question of {self.source} that can be asked: {shown or 'it has no rows'}")
        asked = {pair.clip_id for pair in self.pairs.values()}
        clips = [clip for clip in self.clips.values() if clip.id in asked]
        held = {clip.recording_id for clip in clips}
        return Content(
            recordings=[one for one in self.recordings.values() if one.id in held],
            clips=clips,
            pairs=list(self.pairs.values()),
            dropped=self.dropped,
            notes=notes,
        )

    def _recording(self, file: Location, transcript: str | None) -> Recording:
        probe = audio.probe(file)
        key, end_ms = probe.sha256[:16], max(1, probe.duration_ms)
        said = (Segment(recording_id=key, start_ms=0, end_ms=end_ms, transcript=transcript),) if transcript else ()
        return Recording(
            uri=str(file),
            sha256=probe.sha256,
            rate_hz=probe.rate_hz,
            samples=probe.samples,
            channels=probe.channels,
            source=self.source,
            language=self.language,
            licence=self.licence,
            split="test",
            references=said,
        )

    def _stored(self, content: bytes, name: str) -> Location:
        """Where sound that lay inside another file is put, by its content, so that rows about one sound share the file."""
        given = PurePosixPath(name).suffix.lower()
        known = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), None)
        suffix = known or (given if given in AUDIO_SUFFIXES else ".wav")
        file = self.out / "audio" / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        if not file.exists():
            tables.write_bytes(file, content)
        return file
