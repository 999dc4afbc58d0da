"""The label stage: recordings in, segments with predicted labels out, each recording decoded once however many labellers run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field, PrivateAttr

from undertone import audio
from undertone.label import vad as speech
from undertone.label.protocol import LABELLERS, Labeller
from undertone.records import HUMAN, Label, Recording, Segment, Word
from undertone.stages import Context, Dropped, Kept, Outcome, Stage

RATE_HZ = 16_000


class LabelStage(Stage[Recording, Segment]):
    """Find the speech of a recording and let every labeller judge each segment.

    Of what people said about the recording only the words are used (text and times, as an ASR would give them); speakers and human
    labels do not pass. A segment's words are those whose middle lies in it.
    """

    name: ClassVar[str] = "label"
    version: ClassVar[str] = "1"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Segment]] = Segment
    batch_rows: ClassVar[int] = 1
    heavy: ClassVar[bool] = True

    labellers: tuple[str, ...] = ("affect-small", "prosody")
    vad: speech.Method = "energy"
    max_segment_ms: int = Field(default=15_000, ge=1_000)
    chunk_ms: int = Field(default=30_000, ge=1_000)

    _open_labellers: list[Labeller] = PrivateAttr(default_factory=list)

    def open(self, context: Context) -> None:
        self._open_labellers = [LABELLERS.get(name) for name in self.labellers]

    def identity(self) -> dict[str, object]:
        # A labeller of another version gives other labels: its version belongs to what the table is a function of.
        return {**super().identity(), "labellers": [f"{name}@{LABELLERS.get(name).version}" for name in self.labellers]}

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Segment]]:
        return [self._label(row) for row in rows]

    def _label(self, recording: Recording) -> Outcome[Segment]:
        words = sorted((word for one in recording.references for word in one.words), key=lambda word: (word.start_ms, word.end_ms))
        chunks = audio.stream(recording.uri, rate_hz=RATE_HZ, chunk_ms=self.chunk_ms)
        made = [
            self._segment(recording, region.start_ms, region.end_ms, wave, words)
            for region, wave in speech.segments(chunks, method=self.vad, max_segment_ms=self.max_segment_ms)
        ]
        return Kept(tuple(made)) if made else Dropped("no_speech")

    def _segment(self, recording: Recording, start_ms: int, end_ms: int, wave: audio.Wave, words: Sequence[Word]) -> Segment:
        held = tuple(word for word in words if start_ms <= (word.start_ms + word.end_ms) // 2 < end_ms)
        labels: list[Label] = []
        for labeller in self._open_labellers:
            labels += labeller.label(wave, start_ms=start_ms)
        if any(label.labeller == HUMAN for label in labels):
            raise ValueError(f"a labeller signed as {HUMAN!r}; predicted labels carry the labeller's own name")
        return Segment(
            recording_id=recording.id,
            start_ms=start_ms,
            end_ms=end_ms,
            transcript=" ".join(word.text for word in held) or None,
            words=held,
            labels=tuple(labels),
        )


def labelled(file: Path, *, stage: LabelStage | None = None) -> tuple[Segment, ...]:
    """The labelled segments of one audio file, without tables; empty where it holds no speech.

    Raises:
        AudioError: The file cannot be decoded.
    """
    probe = audio.probe(file)
    recording = Recording(
        uri=str(file), sha256=probe.sha256, rate_hz=probe.rate_hz, samples=probe.samples, channels=probe.channels, source="file"
    )
    stage = stage or LabelStage()
    stage.open(Context(out_dir=Path(), seed=0, sides={}))
    outcome = stage.process([recording])[0]
    return outcome.rows if isinstance(outcome, Kept) else ()
