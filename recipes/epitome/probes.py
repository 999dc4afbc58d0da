"""Replies of ours with the levels that we meant, written before the model was run: does what it learned on Reddit hold for such replies?

Spoken sentences and the kind of reply that an assistant gives. The levels follow EPITOME's definitions: an emotional reaction is weak where
it is only alluded to ("it will be fine") and strong where the feeling is named; an interpretation is weak where understanding is only
claimed and strong where the other's feeling or a like experience is spelled out; an exploration is weak where the question is generic and
strong where it asks after something named. One reading, and no gold standard.
"""

from __future__ import annotations

from typing import NamedTuple


class Probe(NamedTuple):
    """What was said, a reply, and the levels that it was written to have."""

    seeker: str
    response: str
    levels: tuple[int, int, int]


PROBES = (
    Probe("My dog died this morning.", "I'm so sorry for your loss, that breaks my heart.", (2, 0, 0)),
    Probe("My dog died this morning.", "Dogs usually live ten to thirteen years.", (0, 0, 0)),
    Probe("My dog died this morning.", "What was your dog's name?", (0, 0, 2)),
    Probe(
        "My dog died this morning.", "Losing a friend who was always there must leave you feeling so empty and lonely.", (0, 2, 0)
    ),
    Probe("I failed the exam again.", "Don't worry, everything will be fine.", (1, 0, 0)),
    Probe("I failed the exam again.", "I understand how you feel.", (0, 1, 0)),
    Probe("I failed the exam again.", "What happened?", (0, 0, 1)),
    Probe(
        "I failed the exam again.", "Which part of the exam was hardest for you, and did you get enough sleep before it?", (0, 0, 2)
    ),
    Probe("I failed the exam again.", "I failed mine twice and felt like an idiot for weeks, so I know that shame.", (0, 2, 0)),
    Probe("I failed the exam again.", "The next date is on the fourth of May. You can register online.", (0, 0, 0)),
    Probe("Everyone forgot my birthday.", "I feel really sad for you. You must feel so unimportant right now.", (2, 2, 0)),
    Probe("Everyone forgot my birthday.", "Happy birthday! I hope that the rest of your day is better.", (1, 0, 0)),
    Probe("Everyone forgot my birthday.", "Are you feeling alone right now?", (0, 0, 2)),
    Probe("Nobody at work talks to me.", "I'm sorry that you are going through this. Do you want to talk about it?", (2, 0, 1)),
    Probe("Nobody at work talks to me.", "You should join a club, or ask a colleague to lunch.", (0, 0, 0)),
    Probe("Nobody at work talks to me.", "It sounds like you feel invisible there, and that is exhausting.", (0, 2, 0)),
    Probe("I got the job!", "That is wonderful, I am so happy for you!", (2, 0, 0)),
    Probe("I got the job!", "You must be thrilled after all that waiting. When do you start?", (0, 2, 2)),
    Probe("I got the job!", "Okay.", (0, 0, 0)),
    Probe(
        "The train was cancelled and I missed my own interview.", "The rail company refunds tickets within two weeks.", (0, 0, 0)
    ),
)

BARELY = ("Ok.", "Yes.", "I see.", "Hmm.", "No comment", "A b c d e f g.", "lorem ipsum dolor sit amet")
"""Replies that say next to nothing; none has a level above 0 in any mechanism."""
