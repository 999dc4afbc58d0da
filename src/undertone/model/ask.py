"""One question about one audio file: `undertone ask`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from undertone.audio import Wave
from undertone.errors import ModelError
from undertone.metadata import render
from undertone.model import prompts
from undertone.model.checkpoint import Checkpoint, read_checkpoint
from undertone.model.encoders import RATE_HZ, load_encoder, load_inputs
from undertone.model.features import StoredFrames, encode
from undertone.model.nuance import with_nuance
from undertone.model.speech_llm import SpeechLLM
from undertone.paths import Location, local_folder
from undertone.records import Segment


def shows_metadata(checkpoint: Location) -> bool:
    """Whether a checkpoint expects predicted labels in its prompts, so that the caller must label the file first.

    Raises:
        ModelError: It is not a checkpoint.
    """
    system = _card(checkpoint).system
    return system is not None and system.shows_metadata("inference")


def ask(checkpoint: Location, wave: Wave, question: str, predicted: Sequence[Segment] = (), *, max_new_tokens: int = 40) -> str:
    """Answer a question about an audio file as the checkpoint's system would in a study with `evaluate.max_new_tokens` of as many.

    Args:
        checkpoint: Folder that training wrote, here or in an object store.
        wave: The whole file, mono at 16 kHz.
        question: The question.
        predicted: Segments of the file with predicted labels; used where the checkpoint shows metadata.
        max_new_tokens: Longest answer; the default is a study's.

    Raises:
        ModelError: It is not a checkpoint, it reads transcripts, or it was trained on frames of another encoder.
    """
    prompt, frames = _shown(checkpoint, wave, question, predicted)
    return SpeechLLM.load(local_folder(checkpoint)).answer([prompt], [frames], max_new_tokens=max_new_tokens)[0].text


def ask_in_pieces(
    checkpoint: Location, wave: Wave, question: str, predicted: Sequence[Segment] = (), *, max_new_tokens: int = 40
) -> Iterator[str]:
    """The answer of `ask` piece by piece, as it is written; arguments and errors as there, raised with the first piece."""
    prompt, frames = _shown(checkpoint, wave, question, predicted)
    yield from SpeechLLM.load(local_folder(checkpoint)).stream(prompt, frames, max_new_tokens=max_new_tokens)


def _shown(checkpoint: Location, wave: Wave, question: str, predicted: Sequence[Segment]) -> tuple[str, StoredFrames | None]:
    """The prompt, and what of the speech is heard."""
    card = _card(checkpoint)
    if card.system is not None and card.system.hears == "words":
        raise ModelError(f"{checkpoint} reads transcripts and cannot hear a file; choose a system that hears speech, such as S30")
    if wave.rate_hz != RATE_HZ:
        raise ModelError(f"ask needs {RATE_HZ} Hz, got {wave.rate_hz}; load the file with audio.load(path, rate_hz={RATE_HZ})")
    metadata = None
    if card.system is not None and card.system.shows_metadata("inference"):
        end_ms = max(1, len(wave.samples) * 1000 // RATE_HZ)
        metadata = render(predicted, start_ms=0, end_ms=end_ms, config=card.model.metadata)
    hears = card.system is None or card.system.hears == "speech"
    frames = None
    if hears:
        encoder = load_inputs(card.model.encoder) if card.model.encoder_inside else load_encoder(card.model.encoder)
        encoder = with_nuance(encoder, card.model.nuance)
        if card.encoder_fingerprint not in (None, encoder.fingerprint):
            raise ModelError(
                f"{checkpoint} was trained on frames of encoder {card.encoder_fingerprint}, but {card.model.encoder.name} here is "
                f"{encoder.fingerprint}; train it again with this encoder, or install the former one"
            )
        frames = encode(wave.samples, encoder, max_audio_s=card.model.max_audio_s)
    speech = prompts.AUDIO if hears else ""
    return prompts.build(question, metadata=metadata, place=card.model.metadata.place, speech=speech), frames


def _card(checkpoint: Location) -> Checkpoint:
    try:
        return read_checkpoint(local_folder(checkpoint))
    except ModelError as error:
        raise ModelError(str(error).replace(str(local_folder(checkpoint)), str(checkpoint))) from error
