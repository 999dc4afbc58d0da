"""Whether an answer agrees with the labels of its clip, and which part of the clip a question leads to."""

from __future__ import annotations

import re

from undertone.generate.askable import dominant_emotion, only_gender, shares, speaker_count, speaker_counts
from undertone.generate.checks.limits import Limits
from undertone.lexicon import ATTRIBUTE_OF_KIND, LABEL_WORDS, content_words, labels_in, plain, tokens
from undertone.records import Clip, QAPair, Segment

_CHANGE = re.compile(r"\bfrom ([^.;:?!]+?) (?:in)?to ([^.;:?!]+)", re.IGNORECASE)


def anchored(question: str, clip: Clip) -> Segment | None:
    """The one segment that holds all content words of a question that are said in the clip; None where they lie in several, or are none."""
    asked = set(content_words(plain(question)))
    named = [one for one in clip.segments if asked & set(tokens(plain(one.transcript or "")))]
    return named[0] if len(named) == 1 else None


def unsupported(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """The label does not agree with the clip's labels, or the answer does not say the label.

    A direct question needs the one answer for the whole clip. A question in context needs a label of the segment that it leads to,
    where that can be told, and else of any segment. A reply is to the emotion that fills most of the clip. A transcription must be
    the clip's. Without a label, an answer that names classes must name one that the clip has, and one that tells a change "from sad to angry"
    both in this order. What an instruction asked for passes.
    """
    if pair.kind == "ASR":
        return None if tokens(pair.answer) == tokens(clip.transcript) else "the answer is not what is said"
    attribute = pair.label_attribute or ATTRIBUTE_OF_KIND.get(pair.kind)
    if attribute is None or pair.kind in ("C", "OPEN"):
        return None
    if pair.kind == "REPLY":
        held = next(iter(shares(clip, attribute)), None)
        return None if pair.label in (None, held) else f"the clip is {held}, not {pair.label}"
    named = labels_in(plain(pair.answer), attribute) if attribute in LABEL_WORDS else frozenset()
    if pair.label is None:
        there = _categories(clip, attribute)
        if named and not named & there:
            return f"the answer names {_list(named)}, the clip has {_list(there)}"
        return _untrue_change(plain(pair.answer), clip, attribute) if named else None
    possible = _possible(pair, clip, attribute)
    if pair.label not in possible:
        return f"the label is {pair.label}, by the clip's labels it is {_list(possible)}"
    said = attribute not in LABEL_WORDS or pair.label in named
    return None if said else f"the answer does not say {pair.label}"


def _untrue_change(answer: str, clip: Clip, attribute: str) -> str | None:
    """A change from one class to another that the clip does not have; one that names several classes at an end says too little."""
    heard = [one.category for segment in clip.segments for one in segment.of(attribute) if one.category is not None]
    for told in _CHANGE.finditer(answer):
        before, after = (labels_in(told[end], attribute) for end in (1, 2))
        if len(before) != 1 or len(after) != 1 or before == after:
            continue
        (first,), (then,) = before, after
        if first not in heard or then not in heard[heard.index(first) :]:
            return f"the answer tells a change from {first} to {then}, the clip has {', '.join(heard)}"
    return None


def _possible(pair: QAPair, clip: Clip, attribute: str) -> frozenset[str]:
    if pair.kind == "DS":
        count = speaker_count(clip)
        return frozenset() if count is None else frozenset({str(count)})
    if pair.kind == "CS":
        return speaker_counts(clip)
    if pair.kind in ("DE", "DG"):
        only = dominant_emotion(clip) if pair.kind == "DE" else only_gender(clip)
        return frozenset() if only is None else frozenset({only})
    segment = anchored(pair.question, clip)
    if segment is not None:  # a window inside it may be what is asked about
        return _heard_in(segment, attribute)
    return frozenset(name for one in clip.segments if (name := one.category(attribute)) is not None)


def _categories(clip: Clip, attribute: str) -> frozenset[str]:
    if attribute == "speakers":
        return speaker_counts(clip)
    return frozenset(name for one in clip.segments for name in _heard_in(one, attribute))


def _heard_in(segment: Segment, attribute: str) -> frozenset[str]:
    return frozenset(one.category for one in segment.of(attribute) if one.category is not None)


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"
