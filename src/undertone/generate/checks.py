"""Filters on candidate pairs, each by its name: what is answerable from the question, what presupposes a transcript, what leaks.

2505.13338 (section 3.2) reports that LLM-written questions presuppose a text and repeat each other, and removes them by keywords; its
list is not published, so this one is ours. A check gives None for a pair that passes, and else the reason code with which it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from undertone.generate.askable import dominant_emotion, only_gender, speaker_count
from undertone.lexicon import LABEL_WORDS, content_words, labels_in, tokens
from undertone.records import Clip, QAPair

MAX_QUESTION_WORDS = 40
MAX_ANSWER_WORDS = 60

Check = Callable[[QAPair, Clip], str | None]

_TRANSCRIPT = re.compile(
    r"\b(transcripts?|transcriptions?|captions?|subtitles?|(the|this|given|following|provided|above) (text|passage|paragraph|article|"
    r"document|excerpt)|in the text|written (text|words?)|reading the|line \d+|quot(ed|ation)s?)\b",
    re.IGNORECASE,
)
_LABELS = re.compile(
    r"\b(metadata|meta-data|label(s|l?ed|l?ing)?|annotat(ed|ions?)|tagg?(s|ed)|time ?stamps?|segments?|valence|arousal|dominance( score)?|"
    r"(emotion|confidence) scores?|\d+(\.\d+)? ?(s|ms|seconds?)\b)",
    re.IGNORECASE,
)
_UNANSWERABLE = re.compile(
    r"\b(cannot (be )?(determined?|tell|say|know|infer(red)?|answer)|can't (tell|say|determine)|not possible to|impossible to|"
    r"(is|are|was|were)( not|n't) (mentioned|stated|specified|given|provided|clear|enough)|(is|remains) (unclear|unknown)|unable to|"
    r"no (information|indication|way to)|not enough information|as an ai|i'?m sorry|i apologi[sz]e|i do(n't| not) know)\b",
    re.IGNORECASE,
)


def answer_in_question(pair: QAPair, clip: Clip) -> str | None:
    """The question names the right class and no other, or holds every content word of the answer."""
    if pair.label is not None and pair.label_attribute is not None and pair.label_attribute in LABEL_WORDS:
        return "answer_in_question" if labels_in(pair.question, pair.label_attribute) == {pair.label} else None
    answer = set(content_words(pair.answer))
    return "answer_in_question" if answer and answer <= set(content_words(pair.question)) else None


def presupposes_transcript(pair: QAPair, clip: Clip) -> str | None:
    """The question speaks of a text, which whoever hears the clip does not have."""
    return "presupposes_transcript" if _TRANSCRIPT.search(pair.question) else None


def mentions_labels(pair: QAPair, clip: Clip) -> str | None:
    """Question or answer speaks of labels, scores or time stamps, which are evidence for the generator only (words of the clip aside)."""
    text = pair.question if pair.kind == "ASR" else f"{pair.question} {pair.answer}"
    heard = set(tokens(clip.transcript))
    found = (one.group(0) for one in _LABELS.finditer(text))
    return "mentions_labels" if any(not set(tokens(one)) <= heard for one in found) else None


def too_long(pair: QAPair, clip: Clip) -> str | None:
    """The question has more than 40 words or the answer more than 60; a transcription is as long as the clip."""
    over = len(tokens(pair.question)) > MAX_QUESTION_WORDS or (pair.kind != "ASR" and len(tokens(pair.answer)) > MAX_ANSWER_WORDS)
    return "too_long" if over else None


def unanswerable_phrase(pair: QAPair, clip: Clip) -> str | None:
    """The answer says that there is none, or refuses."""
    return "unanswerable_phrase" if pair.kind != "ASR" and _UNANSWERABLE.search(pair.answer.replace("’", "'")) else None


def supported(pair: QAPair, clip: Clip) -> str | None:
    """The label does not agree with the clip's labels, or the answer does not say the label.

    A direct question needs the one answer for the whole clip, a question in context a segment with that label. Pairs without a label
    pass, except for a transcription, which must be the clip's.
    """
    if pair.kind == "ASR":
        return None if tokens(pair.answer) == tokens(clip.transcript) else "unsupported"
    if pair.label is None or pair.label_attribute is None:
        return None
    possible: set[str | None]
    if pair.kind == "DE":
        possible = {dominant_emotion(clip)}
    elif pair.kind == "DG":
        possible = {only_gender(clip)}
    elif pair.kind in ("DS", "CS"):
        possible = {str(speaker_count(clip))}
    else:
        possible = {one.category(pair.label_attribute) for one in clip.segments}
    said = pair.label_attribute not in LABEL_WORDS or pair.label in labels_in(pair.answer, pair.label_attribute)
    return None if said and pair.label in possible else "unsupported"


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        one.__name__: one
        for one in (answer_in_question, presupposes_transcript, mentions_labels, too_long, unanswerable_phrase, supported)
    }
)
"""The checks that look at one pair, by name, in the order in which they run."""

DUPLICATE = "duplicate_in_clip"
"""Name and reason code of the check that needs the other pairs of a clip: the same question again, letter case and punctuation aside."""

ALL_CHECKS: tuple[str, ...] = (*CHECKS, DUPLICATE)


def same_question(pair: QAPair) -> tuple[str, str, str]:
    """A key that two pairs share when they ask the same of the same clip in the same part of the training mix."""
    return pair.source, pair.clip_id, " ".join(tokens(pair.question))
