"""What a set of generated pairs is worth, as far as numbers tell: acceptance by filter, what needs no hearing, support, variety, lengths.

    asked, kept = pairs that were written, pairs that passed the checks
    print(markdown({"cpqa": measure(asked, kept, losses=losses, clips=clips)}))

Nothing here reads a file or asks a model. Each share says of how many; where there is nothing to count there is no share, and never a 0.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from undertone.generate.checks import ALL_CHECKS, REPEAT_CHECKS, MetadataLeak, WordsOnly
from undertone.generate.checks.agreement import unsupported
from undertone.generate.checks.blind import Asked
from undertone.lexicon import ATTRIBUTE_OF_KIND, LABEL_WORDS, tokens
from undertone.records import Clip, Loss, QAPair, Segment, content_hash

FILTERS: tuple[str, ...] = (*ALL_CHECKS, *REPEAT_CHECKS)
"""All filters in the order in which a study makes them."""

FAILED = "error"
"""Reason of a pair that could not be checked (`execute.run`)."""

DRAWN = 100
"""So many texts measures of variety are taken of: distinct-n falls with the number of texts, so only equally many can be compared."""

_WHAT = ("what", "which", "who", "whose", "where", "when", "why", "how")
_YES_NO = frozenset(
    ["is", "are", "was", "were", "am", "do", "does", "did", "can", "could", "will", "would", "should", "has", "have", "had"]
)
_CLAUSE = re.compile(r"[.!:;]\s+")


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Figures):
    """So many of so many."""

    hits: int = Field(ge=0)
    of: int = Field(ge=0)

    @property
    def share(self) -> float | None:
        """0..1; None of nothing."""
        return self.hits / self.of if self.of else None

    def text(self) -> str:
        """Per cent and out of how many."""
        return "–" if self.share is None else f"{100 * self.share:.1f} % of {self.of:,}"


class Filter(_Figures):
    """What one filter did: `reached` pairs came as far, `stopped` it dropped, `flagged` it let pass with a flag."""

    name: str
    reached: int = Field(ge=0)
    stopped: int = Field(default=0, ge=0)
    flagged: int = Field(default=0, ge=0)

    @property
    def accepted(self) -> Rate:
        """What passed it, of what reached it; a flagged pair has not passed."""
        return Rate(hits=self.reached - self.stopped - self.flagged, of=self.reached)


class Lengths(_Figures):
    """Lengths in words: mean, and the 5th, 50th and 95th percentile (nearest rank)."""

    mean: float
    low: int
    median: int
    high: int

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lengths | None:
        """The lengths of texts; None of none."""
        counts = sorted(len(tokens(one)) for one in texts)
        if not counts:
            return None
        low, median, high = (counts[max(0, math.ceil(share * len(counts)) - 1)] for share in (0.05, 0.5, 0.95))
        return cls(mean=sum(counts) / len(counts), low=low, median=median, high=high)

    def text(self) -> str:
        """For a table."""
        return f"{self.mean:.1f} ({self.low}–{self.high})"


class Variety(_Figures):
    """How different texts are: distinct-n (Li et al., 2016) for n = 1, 2, 3 of `drawn` texts, and how many of all texts are different."""

    drawn: int
    distinct: tuple[float, float, float]
    different: Rate


class Measures(_Figures):
    """The figures of one set of pairs.

    Attributes:
        written, kept, failed: Pairs that were written, that passed all checks, and that could not be checked.
        clips: Clips that the written pairs are about.
        filters: In order.
        words_only: Of the written pairs that need the voice and have one right class: answered right from the words alone, by the reader that
            needs no LLM.
        metadata_leak: Likewise from the string of predicted labels alone; of none where no predicted labels were given.
        supported: Of the written pairs that need the voice: those whose label and answer agree with the clip's own labels.
        true: By attribute, of those among them that have one right class: those that are right by the labels that people gave.
        kinds, types, openings: Of the kept pairs, the number by kind, by type of question, and by its first two words.
        questions, answers: Variety of the kept pairs.
        question_words, answer_words: Lengths of the kept pairs.
    """

    written: int
    kept: int
    failed: int
    clips: int
    filters: tuple[Filter, ...]
    words_only: Rate
    metadata_leak: Rate
    supported: Rate
    true: dict[str, Rate]
    kinds: dict[str, int]
    types: dict[str, int]
    openings: dict[str, int]
    questions: Variety | None
    answers: Variety | None
    question_words: Lengths | None
    answer_words: Lengths | None


def measure(
    asked: Sequence[QAPair],
    kept: Sequence[QAPair],
    *,
    losses: Sequence[Loss],
    clips: Mapping[str, Clip],
    predicted: Mapping[str, Sequence[Segment]] | None = None,
    truth: Mapping[str, Clip] | None = None,
    drawn: int = DRAWN,
) -> Measures:
    """Measure the pairs of one source.

    Args:
        asked: The pairs as they were written, before any check.
        kept: Those that passed.
        losses: What became of the others; losses of other pairs are passed over.
        clips: What the pairs are about, by id.
        predicted: Segments with predicted labels by recording.
        truth: The same clips with the labels that people gave, by id; those that people did not label are left out.
        drawn: See `DRAWN`.

    Raises:
        KeyError: A pair is about no clip of `clips`.
    """
    ours = {one.id for one in asked}
    reasons = Counter(one.reason for one in losses if one.row_id in ours)
    heard = [one for one in asked if one.kind in ATTRIBUTE_OF_KIND]
    judged = [one for one in heard if one.label is not None and truth is not None and one.clip_id in truth]
    questions, replies = [one.question for one in kept], [one.answer for one in kept]
    return Measures(
        written=len(asked),
        kept=len(kept),
        failed=reasons[FAILED],
        clips=len({one.clip_id for one in asked}),
        filters=filters(len(asked) - reasons[FAILED], reasons, Counter(name for one in kept for name in one.flags)),
        words_only=_guessed(WordsOnly().asked(one, clips[one.clip_id]) for one in heard),
        metadata_leak=_guessed(
            MetadataLeak().asked(one, clips[one.clip_id], (predicted or {}).get(one.recording_id, ())) for one in heard
        ),
        supported=_supported(heard, clips),
        true={
            name: _supported([one for one in judged if one.label_attribute == name], truth or {})
            for name in LABEL_WORDS
            if any(one.label_attribute == name for one in judged)
        },
        kinds=_counted(one.kind for one in kept),
        types=_counted(map(question_type, questions)),
        openings=_counted(" ".join(tokens(one)[:2]) for one in questions),
        questions=variety(questions, drawn=drawn),
        answers=variety(replies, drawn=drawn),
        question_words=Lengths.of(questions),
        answer_words=Lengths.of(replies),
    )


def filters(written: int, stopped: Mapping[str, int], flagged: Mapping[str, int]) -> tuple[Filter, ...]:
    """What each filter did to pairs that stop at the first that drops them.

    Args:
        written: How many pairs were checked.
        stopped: How many each filter dropped; a reason that is no filter of `FILTERS` stands last.
        flagged: How many each filter flagged.
    """
    found, left = [], written
    for name in (*FILTERS, *sorted(one for one in stopped if one not in FILTERS and one != FAILED)):
        found.append(Filter(name=name, reached=left, stopped=stopped.get(name, 0), flagged=flagged.get(name, 0)))
        left -= stopped.get(name, 0)
    return tuple(found)


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Share of different n-grams among all n-grams of texts (distinct-n; Li et al., 2016); None where there are none.

    >>> distinct(["how do they feel", "how do they sound"], 2)
    0.6666666666666666
    """
    grams = [tuple(words[at : at + n]) for words in map(tokens, texts) for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def variety(texts: Sequence[str], *, drawn: int = DRAWN) -> Variety | None:
    """How different texts are; None of none. Which are drawn is a matter of what they say, not of their order."""
    if not texts:
        return None
    numbered = sorted((content_hash(text, str(index)), text) for index, text in enumerate(sorted(texts)))
    some = [text for _, text in numbered[:drawn]]
    one, two, three = (distinct(some, n) or 0.0 for n in (1, 2, 3))
    return Variety(drawn=len(some), distinct=(one, two, three), different=Rate(hits=len(set(texts)), of=len(texts)))


def question_type(question: str) -> str:
    """The word that a question asks with ("how", "which"), "yes or no", "instruction", or "other".

    >>> [question_type(one) for one in ("Listen closely. In what mood does it end?", "Is it a man?", "Name the emotion.")]
    ['what', 'yes or no', 'instruction']
    """
    clauses = _CLAUSE.split(question)
    words = tokens(next((one for one in reversed(clauses) if "?" in one), clauses[-1]))
    if not words:
        return "other"
    bare = [re.split("['’]", one)[0] for one in words]  # "what's"
    if bare[0] in _YES_NO:
        return "yes or no"
    asks = next((one for one in bare if one in _WHAT), None)
    # "Say how it sounds" asks for the same as "How does it sound?" but is put as a task.
    return (asks or "other") if "?" in question else "instruction"


def effective(counts: Mapping[str, int]) -> float | None:
    """How many equally frequent classes would be as diverse (exponential of the entropy, Hill number of order 1); None of none."""
    total = sum(counts.values())
    if not total:
        return None
    return math.exp(-sum(one / total * math.log(one / total) for one in counts.values() if one))


def markdown(found: Mapping[str, Measures]) -> str:
    """One column for each set of pairs, a row for each figure."""
    rows: list[tuple[str, list[str]]] = []

    def row(name: str, cells: Iterable[str]) -> None:
        rows.append((name, list(cells)))

    every = found.values()
    row("pairs written, about clips", (f"{one.written:,}, {one.clips:,}" for one in every))
    row("pairs kept", (f"{one.kept:,} ({Rate(hits=one.kept, of=one.written).text()})" for one in every))
    if any(one.failed for one in every):
        row("could not be checked", (f"{one.failed:,}" for one in every))
    for index, name in enumerate(dict.fromkeys(name.name for one in every for name in one.filters)):
        column = [next((step for step in one.filters if step.name == name), None) for one in every]
        if index == 0 or any(step and (step.stopped or step.flagged) for step in column):
            row(f"passes `{name}`", ("–" if step is None else step.accepted.text() for step in column))
    row("answered from words alone", (one.words_only.text() for one in every))
    row("answered from label string alone", (one.metadata_leak.text() for one in every))
    row("supported by the clip's labels", (one.supported.text() for one in every))
    for name in LABEL_WORDS:
        if any(name in one.true for one in every):
            row(f"right {name} by people's labels", (one.true[name].text() if name in one.true else "–" for one in every))
    row("kinds", (_shares(one.kinds) for one in every))
    row("types of question", (_shares(one.types) for one in every))
    row("effective number of openings", (_number(effective(one.openings)) for one in every))
    row("different questions", ("–" if one.questions is None else one.questions.different.text() for one in every))
    row("distinct-1/2/3 of questions", (_distinct(one.questions) for one in every))
    row("distinct-1/2/3 of answers", (_distinct(one.answers) for one in every))
    row("words in a question, mean (5–95 %)", ("–" if (it := one.question_words) is None else it.text() for one in every))
    row("words in an answer, mean (5–95 %)", ("–" if (it := one.answer_words) is None else it.text() for one in every))
    head = [f"| | {' | '.join(found)} |", f"|---|{'---:|' * len(found)}"]
    return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def silent(found: Iterable[Measures]) -> list[str]:
    """The filters that stopped and flagged nothing in any of several sets: `markdown` leaves all but the first of them out."""
    acted = {step.name for one in found for step in one.filters if step.stopped or step.flagged}
    return [name for name in FILTERS if name not in acted]


def _guessed(asked: Iterable[Asked | None]) -> Rate:
    tried = [one for one in asked if one is not None]
    return Rate(hits=sum(one.guess == one.right for one in tried), of=len(tried))


def _supported(pairs: Sequence[QAPair], clips: Mapping[str, Clip]) -> Rate:
    return Rate(hits=sum(unsupported(one, clips[one.clip_id]) is None for one in pairs), of=len(pairs))


def _counted(names: Iterable[str]) -> dict[str, int]:
    """Most frequent first, ties by name."""
    return dict(sorted(Counter(names).items(), key=lambda one: (-one[1], one[0])))


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in counts.items()) or "–"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _distinct(found: Variety | None) -> str:
    return "–" if found is None else f"{' / '.join(f'{one:.2f}' for one in found.distinct)} (of {found.drawn})"
