"""The labels of one audio file, without tables."""

from __future__ import annotations

from pathlib import Path

from undertone import audio
from undertone.errors import DataError
from undertone.label.decide import Decide
from undertone.label.stage import LabelStage
from undertone.paths import Location
from undertone.records import Recording, Segment
from undertone.stages import Context, Failed, Kept


def labelled(file: Location, *, label: LabelStage | None = None, decide: Decide | None = None) -> tuple[Segment, ...]:
    """The labelled segments of an audio file; empty where it holds no speech.

    Args:
        file: The audio.
        label: Whom to ask; the built-in labellers if None.
        decide: What to make of it.

    Raises:
        AudioError: The file cannot be decoded.
        DataError: A labeller failed on it.
    """
    label, decide = label or LabelStage(), decide or Decide()
    probe = audio.probe(file)
    recording = Recording(
        uri=str(file), sha256=probe.sha256, rate_hz=probe.rate_hz, samples=probe.samples, channels=probe.channels, source="file"
    )
    label.open(Context(out_dir=Path(), seed=0, sides={}))
    outcome = label.process([recording])[0]
    if isinstance(outcome, Failed):
        raise DataError(f"{file} could not be labelled: {outcome.error}")
    return tuple(piece for row in outcome.rows for piece in decide.decided(row)) if isinstance(outcome, Kept) else ()
