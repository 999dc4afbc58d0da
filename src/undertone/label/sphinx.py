"""The labeller `pocketsphinx`, an English recogniser that works offline, and `align`, which finds when a known text is said.

Everything is in pocketsphinx's own wheel (engine and models BSD-2-Clause): CMU's en-us acoustic model, a trigram model, CMUdict. It hears
clear speech tolerably and emotional speech badly (`benchmarks/bench_words.py` says how badly); aligning text that is known is another
matter, and works on shouted and whispered sentences too.
"""

from __future__ import annotations

import functools
import math
import re
import threading
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import soxr

from undertone.audio import Wave, normalise
from undertone.errors import ModelError
from undertone.label.hub import needs
from undertone.label.protocol import Labeller, Transcript, Value, abstain, labeller
from undertone.label.spoken import pronounce, written
from undertone.label.transcripts import compression_ratio, repeated_share
from undertone.records import Word

_NAME = "pocketsphinx"
RATE_HZ = 16_000
MIN_MS = 100
_FRAME_MS = 10
_SCORE_UNIT = 1024  # the engine holds log likelihoods of senones shifted right by 10 bits

MIN_CONFIDENCE = 0.01
"""Alignments below it are refused. In `benchmarks/bench_words.py` that is none of 219 texts that are said; of texts that are not, 156 of
219 are refused, by it or because the search does not reach their end (50 of 100 where a scream or whisper fits anything)."""

_lock = threading.RLock()  # a decoder holds one utterance


@labeller(_NAME, version="1", emits=[Transcript()], hears="segment", rate_hz=RATE_HZ, min_ms=MIN_MS, licence="BSD-2-Clause")
class PocketSphinx(Labeller):
    """Transcribes a segment of English in lower case without punctuation.

    A word's confidence is its posterior probability in the lattice. The value's `distribution` holds `posterior` (mean over the
    words), `compression_ratio` and `repeated` (share of words in loops) for `label.transcripts.Hallucination`. It hears English words in
    any sound: other languages, laughter, a cough.
    """

    languages = frozenset({"en"})

    def __init__(self) -> None:
        """There is nothing to configure."""

    def check(self) -> None:
        needs(self.name, "pocketsphinx", extra="asr")

    @property
    def revision(self) -> str:
        """The wheel, which holds the models."""
        return _revision()

    def open(self) -> None:
        """Load the models now (0.3 s)."""
        _engine("recognise")

    def judge(self, wave: Wave) -> Sequence[Value]:
        """Transcribe one wave; "no_words" where nothing but silence and noise was heard."""
        words = tuple(
            Word(
                text=re.sub(r"\(\d+\)$", "", part.word),  # "and(2)" is the second pronunciation of "and"
                start_ms=_FRAME_MS * part.start_frame,
                end_ms=min(_FRAME_MS * (part.end_frame + 1), wave.duration_ms),
                confidence=min(1.0, float(part.prob)),
            )
            for part in _decode("recognise", wave) or ()
        )
        if not words:
            return [abstain("transcript", "no_words")]
        text = " ".join(word.text for word in words)
        scores = {
            "posterior": float(np.mean([word.confidence for word in words])),
            "compression_ratio": compression_ratio(text),
            "repeated": repeated_share(text),
        }
        return [Value(attribute="transcript", category=text, distribution=scores, words=words)]


@functools.cache
def _revision() -> str:
    needs(_NAME, "pocketsphinx", extra="asr")
    return f"pocketsphinx@{version('pocketsphinx')}"


def align(wave: Wave, text: str, *, min_confidence: float = MIN_CONFIDENCE) -> tuple[Word, ...] | None:
    """When each word of a known English text is said.

    Words that the dictionary lacks get a pronunciation by rule (`label.spoken`). A confidence is the likelihood of the word's sounds
    relative to the best sounds that were considered, its geometric mean over 10 ms frames: about 0.3 for clear speech, 0.05 for a
    scream. It is no probability. A text that is not said is often refused but not always: check doubtful texts otherwise.

    Args:
        wave: Speech at any rate; the whole of the text is said in it, silence may surround it.
        text: As written, with case, punctuation and digits.
        min_confidence: Geometric mean over the words below which an alignment is refused.

    Returns:
        The words as written (joined by spaces they are the text, white space aside), times in ms from the wave's start, pauses between
        them left out; None where nothing in the text can be said or the text does not fit the sound.

    Raises:
        DependencyError: pocketsphinx is not installed.
    """
    if wave.duration_ms < MIN_MS:
        return None
    with _lock:
        engine = _engine("align")
        planned = written(text, lambda word: engine.lookup(word) is not None)
        said = [word for one in planned for word in one.said]
        if not said:
            return None
        for word in dict.fromkeys(said):
            if engine.lookup(word) is None:
                engine.add(word)
        found = _decode("align", wave, " ".join(said))
    if found is None or len(found) != len(said):  # the search did not reach the end of the text
        return None
    words, scores, at = [], [], 0
    for one in planned:
        parts = found[at : at + len(one.said)]
        at += len(parts)
        frames = sum(part.end_frame - part.start_frame + 1 for part in parts)
        scores.append(_SCORE_UNIT * sum(math.log(max(part.ascore, 1e-300)) for part in parts) / frames)
        end_ms = min(_FRAME_MS * (parts[-1].end_frame + 1), wave.duration_ms)
        words.append(
            Word(text=one.text, start_ms=_FRAME_MS * parts[0].start_frame, end_ms=end_ms, confidence=min(1.0, math.exp(scores[-1])))
        )
    return tuple(words) if math.exp(float(np.mean(scores))) >= min_confidence else None


class _Engine:
    """A decoder, and which words of its dictionary are its own: a made-up word must not change how the next text is read."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self._added: set[str] = set()

    def lookup(self, word: str) -> str | None:
        """Phones of a word of the dictionary that the wheel has."""
        phones: str | None = None if word in self._added else self.decoder.lookup_word(word)
        return phones

    def add(self, word: str) -> None:
        """A word with a pronunciation by rule."""
        if word not in self._added:
            self.decoder.add_word(word, pronounce(word, self.lookup))
            self._added.add(word)


@functools.cache
def _engine(task: str) -> _Engine:
    """One for each task and process: loading takes long, and aligning must not add words to the recogniser's dictionary."""
    needs(_NAME, "pocketsphinx", extra="asr")
    import pocketsphinx

    # The best path through the lattice, which gives posteriors, need not end where the text ends: for a known text it is left out.
    config = {"lm": None, "bestpath": False} if task == "align" else {}
    return _Engine(pocketsphinx.Decoder(loglevel="FATAL", **config))


def _decode(task: str, wave: Wave, text: str | None = None) -> list[Any] | None:
    """Segments of words, silence and noise left out; None where nothing was found.

    The front end's noise estimate lives on from one utterance to the next, so it is made anew (under 1 ms): the same wave gives the
    same words whatever was heard before.
    """
    at_rate = wave if wave.rate_hz == RATE_HZ else Wave(soxr.resample(wave.samples, wave.rate_hz, RATE_HZ), RATE_HZ)
    if not np.abs(at_rate.samples).max(initial=0.0) * 32768.0 >= 1.0:  # the engine hears words in digital silence
        return None
    sound = np.round(normalise(at_rate).samples * 32767.0).clip(-32768, 32767).astype(np.int16).tobytes()
    with _lock:
        decoder = _engine(task).decoder
        try:
            decoder.reinit_feat()
            if text is not None:
                decoder.set_align_text(text)
            decoder.start_utt()
            decoder.process_raw(sound, full_utt=True)
            decoder.end_utt()
            if decoder.hyp() is None:
                return None
            return [part for part in decoder.seg() if not part.word.startswith(("<", "[", "+"))]
        except RuntimeError as error:  # all that the engine raises; it may be in the middle of an utterance now
            _engine.cache_clear()
            if text is not None:
                return None
            raise ModelError(f"labeller {_NAME!r} failed on {wave.duration_ms} ms of sound: {error}") from error
