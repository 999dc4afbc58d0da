"""Whether a transcript can be believed: what a recogniser said about its own text, and the thresholds that decide.

Recognisers of the Whisper kind write fluent sentences over silence, music and long vocal sounds, and loop. Koenecke et al. (2024),
"Careless Whisper: Speech-to-Text Hallucination Harms" (FAccT), found whole invented phrases in about one transcript in a hundred,
more where speakers pause; Baranski et al. (2025), "Investigation of Whisper ASR Hallucinations Induced by Non-Speech Audio" (ICASSP),
found that few phrases and loops make up most of them. A labeller keeps what it heard together with its scores
(`Label.distribution`), whatever they are; `Hallucination` refuses later, so that thresholds change without running a model again.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from undertone.records import Label

LOOPS = 3
"""An n-gram said this many times in a row is a loop."""


class Hallucination(BaseModel):
    """Thresholds on a transcript's scores; None turns a check off, and a score that a recogniser does not give is not checked.

    The first three are Whisper's own (Radford et al., 2022, section 4.5, and the defaults of its `transcribe`). There a text that is
    too compressible or too improbable is decoded again at a higher temperature, and what is improbable *and* probably no speech is
    dropped; decoding again is random, so here the compressible text is refused at once. The fourth is ours: Whisper's ratio is blind
    to loops in short texts, since zlib needs length. The last is for recognisers that give posteriors (pocketsphinx), which hear words in
    any sound. Its default was chosen on 367 clips, and these are their shares (2026-11-20): below 0.3 are 72 % of Polish sentences (nemo),
    52 % of vocal bursts (emogator), 39 % of coughs and the like (deeply-nonverbal), but also 6 % of the transcripts of read-speech,
    ravdess and tess with at most a quarter of their words wrong, and 38 % of those with more than 60 % wrong. A burst that is heard
    as one short word has a high posterior: raise it to 0.5 and 77 % of bursts go, with 29 % of the right transcripts.

    Attributes:
        max_compression_ratio: Of UTF-8 bytes to zlib bytes.
        max_no_speech: Probability of no speech; refused only where `min_mean_logprob` is not reached either.
        min_mean_logprob: Mean log probability (natural) of the tokens.
        max_repeated: Share of words inside a loop. Excited people repeat themselves too ("no no no"): raise it for such speech.
        min_posterior: Mean posterior probability of the words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_compression_ratio: float | None = Field(default=2.4, gt=0)
    max_no_speech: float | None = Field(default=0.6, ge=0, le=1)
    min_mean_logprob: float | None = Field(default=-1.0, le=0)
    max_repeated: float | None = Field(default=0.3, ge=0, le=1)
    min_posterior: float | None = Field(default=0.3, ge=0, le=1)

    def refusal(self, label: Label) -> str | None:
        """Why a transcript is not believed: "repeats", "compressible", "unsure" or "no_speech"; None where nothing speaks against it.

        Args:
            label: A transcript with its scores; an abstention is not refused, for there is nothing to refuse.

        >>> heard = Label(attribute="transcript", category="so so so so", start_ms=0, end_ms=900, labeller="x@1",
        ...     distribution={"repeated": 1.0})
        >>> Hallucination().refusal(heard), Hallucination(max_repeated=None).refusal(heard)
        ('repeats', None)
        """
        if label.category is None or label.distribution is None:
            return None
        scores = label.distribution
        if _above(scores.get("repeated"), self.max_repeated):
            return "repeats"
        if _above(scores.get("compression_ratio"), self.max_compression_ratio):
            return "compressible"
        if _above(self.min_posterior, scores.get("posterior")):
            return "unsure"
        improbable = _above(self.min_mean_logprob, scores.get("mean_logprob"))
        return "no_speech" if improbable and _above(scores.get("no_speech"), self.max_no_speech) else None


def _above(value: float | None, bound: float | None) -> bool:
    """Whether a value is above a bound; no where one of them is not known."""
    return value is not None and bound is not None and value > bound


def compression_ratio(text: str) -> float:
    """Bytes of the text in UTF-8 per byte of its zlib compression, as in Whisper; below 1 for short texts, 0 for an empty one."""
    raw = text.encode()
    return len(raw) / len(zlib.compress(raw))


def repeated_share(text: str) -> float:
    """The share of words inside an n-gram, of any length, that is said at least three times in a row; case and punctuation ignored.

    >>> repeated_share("thank you. Thank you. Thank you! bye bye")
    0.75
    """
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.casefold())
    return sum(_looped(words)) / len(words) if words else 0.0


def _looped(words: Sequence[str]) -> list[bool]:
    """For each word whether it lies in a loop: for a period of n words, a run in which each word equals the one n before it."""
    inside = [False] * len(words)
    for n in range(1, len(words) // LOOPS + 1):
        begin = 0
        for at in range(n, len(words) + 1):
            if at < len(words) and words[at] == words[at - n]:
                continue
            if at - begin >= LOOPS * n:
                inside[begin:at] = [True] * (at - begin)
            begin = at - n + 1
    return inside
