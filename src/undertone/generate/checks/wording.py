"""Checks of a pair's wording: what its question gives away, what it presupposes, and answers that are none.

2505.13338 (section 3.2) reports that LLM-written questions presuppose a text and repeat each other, and removes them by keywords; its
list is not published, so this one is ours. A phrase that is said in the clip is no fault: people speak of texts and labels, too.
"""

from __future__ import annotations

import re

from undertone.generate.checks.form import words_of
from undertone.generate.checks.limits import Limits
from undertone.lexicon import LABEL_WORDS, content_words, labels_in, plain, tokens
from undertone.records import Clip, QAPair
from undertone.refusals import is_refusal, is_refused_reply

_TRANSCRIPT = re.compile(
    r"\b(transcripts?|transcriptions?|captions?|subtitles?|(the|this|given|following|provided|above) (text|passage|paragraph|article|"
    r"document|excerpt|script)|in the (text|script)|written (text|words?|lines?)|as (?:it is )?written|"
    r"(dialogue|conversation|utterance|sentence|exchange)s? (above|below|shown)|reading the|lines? \d+|quot(ed|ation)s?)\b",
    re.IGNORECASE,
)
_EVIDENCE = (
    r"metadata|meta-data|annotat(?:ed|ions?)|valence|arousal|dominance(?: score)?|"
    r"(?:emotion|confidence|intensity) (?:scores?|values?|tags?)|(?:confidence|probability|certainty|likelihood) of (?:about )?\d+|"
    r"(?:predicted|detected) (?:emotions?|gender|class(?:es)?)"
)
_LABELS = re.compile(
    rf"\b({_EVIDENCE}|label(s|l?ed|l?ing)?|tagg?(s|ed)|time ?stamps?|segments?|v/a/d|\d+(\.\d+)? ?(ms|seconds?)|"
    r"\w+[- ]second mark|\d+\.\d+ ?s|\d+ s|(at|from|to|until|after|around|between) \d+s|(?<![$€£\d.])[01]\.\d+(?!\d* ?%))\b",
    re.IGNORECASE,
)
_ONLY_EVIDENCE = re.compile(rf"\b({_EVIDENCE})\b", re.IGNORECASE)
_UNANSWERABLE = re.compile(
    r"\b(cannot (be )?(determined?|tell|say|know|infer(red)?|answer)|can't (tell|say|determine)|"
    r"(not possible|impossible|unable) to (?:\w+ )?(determine|tell|say|know|infer|answer|identify|judge|hear)|"
    r"(is|are|was|were)( not|n't) (mentioned|stated|specified|given|provided|clear|enough (?:information|context|detail|evidence))|"
    r"(is|remains) (unclear|unknown)|"
    r"(clip|audio|recording|conversation|dialogue) (does( not|n't)|never) (\w+ )?(say|tell|mention|state|specify|explain|reveal|give)s?|"
    r"no (information|indication|way to)|not enough information|as an ai|i'?m sorry|i apologi[sz]e|i do(n't| not) know)\b",
    re.IGNORECASE,
)


def answer_in_question(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """The question names the right class and no other, or holds every content word of the answer.

    Of a dialogue, a question about the whole clip must not have been answered by the turns before it.
    """
    asked = plain(pair.question)
    if pair.label is not None and pair.label_attribute is not None and pair.label_attribute in LABEL_WORDS:
        before = (
            " ".join(plain(text) for turn in pair.history for text in (turn.question, turn.answer)) if pair.kind[0] == "D" else ""
        )
        for where, text in (("question names", asked), ("turns before it name", before)):
            if labels_in(text, pair.label_attribute) == {pair.label}:
                return f"the {where} {pair.label}"
        return None
    answer = set(content_words(plain(pair.answer)))
    held = bool(answer) and answer <= set(content_words(asked))
    # "Indoors or outdoors?" offers its answers: one of them gives nothing away.
    choice = (
        any(answer <= set(content_words(side)) for side in re.split(r"\bor\b", asked, flags=re.IGNORECASE)[:2]) and " or " in asked
    )
    return "the question holds all that the answer says" if held and not choice else None


def presupposes_transcript(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """The question speaks of a text, which whoever hears the clip does not have."""
    found = _not_heard(_TRANSCRIPT, pair.question, clip)
    return None if found is None else f"the question speaks of {found!r}"


def mentions_labels(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """Question or answer speaks of labels, scores or time stamps, which are evidence for the generator only.

    A reply may speak of seconds and labels; of what only the generator was told it may not.
    """
    if pair.kind == "REPLY":
        found = _not_heard(_LABELS, pair.question, clip) or _not_heard(_ONLY_EVIDENCE, pair.answer, clip)
    else:
        found = _not_heard(_LABELS, pair.question if pair.kind == "ASR" else f"{pair.question} {pair.answer}", clip)
    return None if found is None else f"it speaks of {found!r}"


def too_long(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """Question or answer has more words than its limit; a transcription is as long as the clip."""
    most = limits.reply_words if pair.kind in ("OPEN", "REPLY") else limits.answer_words
    for name, text, limit in (("question", pair.question, limits.question_words), ("answer", pair.answer, most)):
        if (length := words_of(text)) > limit and not (name == "answer" and pair.kind == "ASR"):
            return f"the {name} has {length} words, at most {limit} are wanted"
    return None


def unanswerable_phrase(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """The answer says that there is none, or refuses.

    "I'm so sorry to hear that" is a reply; "I'm sorry, I can't hear the audio" is none.
    """
    if pair.kind == "ASR":
        return None
    if pair.kind in ("OPEN", "REPLY"):
        refused = is_refused_reply(pair.answer) or (pair.kind == "OPEN" and is_refusal(pair.answer))
        return "the answer declines" if refused else None
    found = _not_heard(_UNANSWERABLE, pair.answer, clip)
    return None if found is None else f"the answer says {found!r}"


def _not_heard(pattern: re.Pattern[str], text: str, clip: Clip) -> str | None:
    """The first phrase of a pattern that holds a word which is not said in the clip."""
    heard = set(tokens(plain(clip.transcript)))
    found = (one.group(0) for one in pattern.finditer(plain(text)))
    return next((one for one in found if not set(tokens(one)) <= heard), None)
