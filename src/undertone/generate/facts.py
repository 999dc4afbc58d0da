"""Facts that a plain English sentence states beyond doubt: who, what, where and when, by a few patterns; any other sentence has none.

"Kids are talking by the door." states who is talking by the door, where the kids are talking, and what they are doing there. A pattern
must fit the whole sentence, so that no clause before or after can change what it says; pronouns are never an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from undertone.corpora.scripts import Fact, facts_of, line_of
from undertone.lexicon import STOP_WORDS, labels_in, tokens

_NO_TIME = (
    r"(?!(?:time|end|way|moment|morning|evening|afternoon|night|weekend|week|month|year|minute|hour|day|thousands?|dozens?)\b)"
)
_PLACE = rf"(?:by|near|behind|beside|under|inside|outside|in front of|next to|at) (?:the|a|an) {_NO_TIME}\w+"
_LENGTH = r"(?:a couple of|a few|a|an|two|three|four|five|ten|twenty) (?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)"
_NO_VERB = r"(?!(?:nothing|something|anything|everything|during|being|having|going)\b)"

_PATTERNS: tuple[tuple[re.Pattern[str], tuple[tuple[str, str], ...]], ...] = tuple(
    (re.compile(pattern), asked)
    for pattern, asked in (
        (
            rf"(?P<who>(?:the |my |our |two |three )?\w+) (?P<be>is|are|was|were) (?P<doing>{_NO_VERB}\w+ing) (?P<where>{_PLACE})",
            (
                ("who or what {be} {doing} {where}", "who"),
                ("what {be} {the_who} doing {where}", "doing"),
                ("where {be} {the_who} {doing}", "where"),
            ),
        ),
        (
            r"(?P<who>the \w+) (?P<be>is|are|was|were) (?P<how>(?:almost |nearly |very |quite |too |really )?\w+)",
            (("what is said to be {how}", "who"),),
        ),
        (r"it(?:'s| is) (?P<time>\w+ o'clock)", (("what time is it", "time"),)),
        (
            r"(?:i'm|i am|we're|we are) on (?:my|our) way to (?P<where>(?:the|a) \w+)",
            (("to what is the speaker on the way", "where"),),
        ),
        (
            r"(?:i would|we would|i'd|we'd) like (?P<what>(?:a|an|the|some) (?:\w+ ){0,2}\w+)",
            (("what is asked for", "what"),),
        ),
        (
            r"(?:i|we) (?P<verb>want|need) (?P<what>(?:a|an|the|some) (?:\w+ ){0,2}\w+)",
            (("what is said to be {verb}ed", "what"),),
        ),
        (
            r"(?:please )?(?:don't|do not) forget (?P<what>(?:a|an|the|your|my|our) \w+)",
            (("what should not be forgotten", "what"),),
        ),
        (
            rf"(?:i|we)(?:'ll| will) (?P<do>\w+) in (?P<when>{_LENGTH})",
            (("in how much time will they {do}", "when"),),
        ),
    )
)


def stated(transcript: str) -> Iterator[Fact]:
    """The facts of the sentences of a transcript, those of the demonstration's sentences by their own grammar.

    A recogniser writes no stops: a transcript without any is one sentence.
    """
    for sentence in re.split(r"(?<=[.!?])\s+", transcript.strip()):
        bare = re.sub(r",? please$", "", sentence.strip().rstrip(".!").strip(), flags=re.IGNORECASE)
        if line_of(f"{bare}."):
            yield from facts_of(f"{bare}.")
        elif not bare.endswith("?"):
            yield from _by_pattern(bare.replace("’", "'"))


def _by_pattern(sentence: str) -> Iterator[Fact]:
    if any(labels_in(sentence, name) for name in ("emotion", "gender")):
        return  # its words would tell what only the voice should
    for pattern, asked in _PATTERNS:
        found = pattern.fullmatch(sentence.lower())
        if found is None:
            continue
        parts = found.groupdict()
        if any(_is_vague(parts.get(name)) for name in ("who", "what", "where", "how", "doing", "do", "time")):
            continue
        who = parts.get("who") or ""
        slots = {**parts, "the_who": who if who.startswith(("the ", "my ", "our ")) else f"the {who}"}
        yield from (Fact(_of_others(stem.format(**slots)), _of_others(parts[answer])) for stem, answer in asked)
        return


def _is_vague(part: str | None) -> bool:
    """Whether a part points at nothing by itself: "there", "the other"."""
    return part is not None and (tokens(part)[-1] in STOP_WORDS or len(tokens(part)[-1]) < 3)


def _of_others(text: str) -> str:
    """The speaker's own ("my sister") as others speak of it."""
    return re.sub(r"\b(my|our|your)\b", "their", text)
