"""Clips: consecutive segments of one recording, cut from predicted segments (training) or from human references (test)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from undertone.records import Clip, Recording, Segment, Split
from undertone.stages import Context, Dropped, Kept, Outcome, Stage


class ClipRule(BaseModel):
    """How segments are joined; the same for clips from predicted segments and from references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_ms: int = Field(default=4_000, gt=0)
    max_ms: int = Field(default=15_000, gt=0)
    max_gap_ms: int = Field(default=2_000, ge=0)
    max_segments: int | None = Field(default=None, ge=1)

    def join(self, segments: Iterable[Segment]) -> Iterator[tuple[Segment, ...]]:
        """Greedy runs of segments of one recording, in time order: as long as fits, broken at long gaps."""
        run: list[Segment] = []
        for segment in sorted(segments, key=lambda one: (one.start_ms, one.end_ms)):
            if run and not self._fits(run, segment):
                yield tuple(run)
                run = []
            run.append(segment)
        if run:
            yield tuple(run)

    def refusal(self, clip: Clip) -> Dropped | None:
        """Why a clip is not one by this rule; None where it is."""
        if clip.duration_ms < self.min_ms:
            return Dropped("clip_too_short", f"{clip.duration_ms} ms")
        if clip.duration_ms > self.max_ms:
            return Dropped("clip_too_long", f"{clip.duration_ms} ms")
        return None

    def _fits(self, run: Sequence[Segment], segment: Segment) -> bool:
        return (
            segment.start_ms - run[-1].end_ms <= self.max_gap_ms
            # A first segment that is too long by itself is dropped, and must not take those inside it along.
            and max(segment.end_ms, run[0].end_ms) - run[0].start_ms <= self.max_ms
            and len(run) != self.max_segments
        )


class CutClips(Stage[Segment, Clip]):
    """Join the predicted segments of each recording into clips; rows of split `splits` only."""

    name: ClassVar[str] = "clips"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Segment]] = Segment
    writes: ClassVar[type[Clip]] = Clip
    scope: ClassVar = "part"
    sides: ClassVar = {"recordings": Recording}

    rule: ClipRule = ClipRule()
    splits: tuple[Split, ...] = ("train",)

    _recordings: dict[str, dict[str, str | None]] = PrivateAttr(default_factory=dict)

    def open(self, context: Context) -> None:
        columns = ["id", "uri", "source", "language", "licence", "split"]
        rows = context.sides["recordings"].arrow(columns=columns).to_pylist()
        self._recordings = {row.pop("id"): row for row in rows}

    def process(self, rows: Sequence[Segment]) -> Sequence[Outcome[Clip]]:
        outcomes: dict[str, Outcome[Clip]] = {}
        by_recording: dict[str, list[Segment]] = {}
        for row in rows:
            by_recording.setdefault(row.recording_id, []).append(row)
        for recording_id, segments in by_recording.items():
            about = self._recordings[recording_id]
            if about["split"] not in self.splits:
                outcomes |= {one.id: Dropped("other_split", about["split"]) for one in segments}
                continue
            for run in self.rule.join(segments):
                outcomes |= self._fates(run, about)
        return [outcomes[row.id] for row in rows]

    def _fates(self, run: tuple[Segment, ...], about: dict[str, str | None]) -> dict[str, Outcome[Clip]]:
        clip = clip_of(run, **about)  # type: ignore[arg-type]
        refusal = self.rule.refusal(clip)
        if refusal:
            return dict.fromkeys((one.id for one in run), refusal)
        # The clip is counted with its first segment; the others are kept as parts of it.
        return {one.id: Kept((clip,) if index == 0 else ()) for index, one in enumerate(run)}


class CutReferences(Stage[Recording, Clip]):
    """Join the human references of each recording into clips, for conventional training questions and for the benchmark."""

    name: ClassVar[str] = "references"
    version: ClassVar[str] = "2"
    reads: ClassVar[type[Recording]] = Recording
    writes: ClassVar[type[Clip]] = Clip

    rule: ClipRule = ClipRule()

    def process(self, rows: Sequence[Recording]) -> Sequence[Outcome[Clip]]:
        return [self._cut(row) for row in rows]

    def _cut(self, row: Recording) -> Outcome[Clip]:
        if not row.references:
            return Dropped("no_references")
        about = {name: getattr(row, name) for name in ("uri", "source", "language", "licence", "split")}
        clips = [clip_of(run, **about) for run in self.rule.join(row.references)]
        fit = tuple(clip for clip in clips if self.rule.refusal(clip) is None)
        # Where none fits, the longest speaks for all: it is too short only where all are.
        refusal = None if fit else self.rule.refusal(max(clips, key=lambda clip: clip.duration_ms))
        return refusal or Kept(fit)


def clip_of(
    run: Sequence[Segment], *, uri: str, source: str, language: str | None, licence: str | None, split: Split | None
) -> Clip:
    """The clip that a run of segments makes."""
    return Clip(
        recording_id=run[0].recording_id,
        uri=uri,
        source=source,
        language=language,
        licence=licence,
        split=split,
        start_ms=run[0].start_ms,
        end_ms=max(one.end_ms for one in run),
        segments=tuple(run),
    )
