"""When a model declines instead of answering; read alike in a judged answer, in a check and in a written reply."""

from __future__ import annotations

import re

from undertone.lexicon import plain

_CANNOT = r"(?:can ?not|can't|could not|couldn't|(?:am|'m) (?:unable|not able) to|won't|do not|don't|did not|didn't)"
_TELL = (
    r"(?:determine|tell|identify|answer|hear|process|access|assist|help|provide|decide|say|know|infer|analy[sz]e|listen|judge|comment"
    r"|discern)"
)
_OPENINGS = (
    r"(?:i'm |i am |we are )?(?:very |so )?sorry\b",
    r"unfortunately,? i\b",
    rf"(?:sorry,? |well,? )?i ?{_CANNOT} (?:\w+ ){{0,2}}{_TELL}\b",
    rf"(?:can ?not|can't|unable to) (?:\w+ )?{_TELL}\b",
    r"i (?:do not |don't )?have (?:no (?:way|idea|access)|access|the ability|enough)\b",
    rf"(?:it is |it's )?(?:impossible|not possible) to {_TELL}\b",
    r"(?:it |this |that )?(?:can ?not|can't) be (?:determined|told|identified|answered|known)\b",
    r"(?:there is )?(?:not enough|no way|insufficient)\b",
    r"(?:no answer|n/a|unknown|unclear)\b",
    r"as an? (?:ai|language model|text)\b",
)
_MACHINE = r"\bas an ai (?:language )?model\b|\bi(?:'m| am) (?:just |only )?an? (?:ai|language model)\b"
_REFUSAL = re.compile(rf"^(?:{'|'.join(_OPENINGS)})|{_MACHINE}")
"""Answers that decline. Bound to the start of the answer, or to phrases that only a machine says of itself, because speakers of
recordings also "cannot tell" and "do not know", and a content answer reports that."""

_APOLOGY = r"(?:(?:i'm |i am )?(?:very |so )?sorry,? (?:but )?|unfortunately,? )"
_SOUND = r"(?:(?:to )?(?:the|this|that|any|your) )?(?:audio|recording|voice|sound|clip|speech|file)"
_NO_REPLY = re.compile(
    rf"^{_APOLOGY}?i ?{_CANNOT} (?:\w+ ){{0,2}}(?:process|access|assist|analy[sz]e|determine|identify|provide|comment)\b"
    rf"|^{_APOLOGY}?i ?{_CANNOT} (?:\w+ )?(?:hear|listen|play) {_SOUND}\b"
    rf"|^{_APOLOGY}i ?{_CANNOT} (?:\w+ )?(?:help|answer|respond|fulfil\w*|comply)\b"
    rf"|^{_APOLOGY}?i (?:do not |don't )?have (?:no access|access|the ability)\b|^as an? (?:ai|language model|text)\b|{_MACHINE}"
)
"""Replies to a speaker that decline. "I'm so sorry to hear that", "I don't know what to say" and "I can't help but smile" are replies."""


def is_refusal(text: str) -> bool:
    """Whether an answer declines to answer."""
    return bool(_REFUSAL.search(_flat(text)))


def is_refused_reply(text: str) -> bool:
    """Whether what should be a reply to a speaker declines to reply.

    >>> is_refused_reply("I'm so sorry to hear that."), is_refused_reply("I'm sorry, but I can't assist with that.")
    (False, True)
    """
    return bool(_NO_REPLY.search(_flat(text)))


def _flat(text: str) -> str:
    return plain(text).casefold().strip(" \t\n\"'*")
