"""What can be asked about a clip, and the right answer, before any wording.

A question in context (CE, CG) names an anchor: words that occur in exactly one segment of the clip, or a word at its first or last
occurrence. The words lead to the segment, the voice gives the answer. It is asked only where the segments of the clip differ in what
is asked for (`require_contrast`), because elsewhere the clip's overall emotion would answer it and the context would be decoration.

Nobody is asked about the emotions other and unknown.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from undertone.corpora.scripts import facts_of, line_of
from undertone.generate.evidence import tones
from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS, STOP_WORDS, labels_in, tokens
from undertone.records import Clip, Kind, Segment, category_shares

DOMINANT_SHARE = 0.6
"""Share of the labelled time that one emotion must fill for a direct question to have one answer."""

_CONTEXT_WORDS = (3, 2)
"""How many words a cloze question quotes, the longer first."""

_ARTICLES = frozenset({"the", "a", "an", "this", "that"})
_POSSESSIVES = frozenset({"my", "our"})
_STOPS = (".", ",", ";", ":", "!", "?")


@dataclass(frozen=True)
class Draft:
    """One thing to ask about a clip.

    Attributes:
        form: Which wordings fit (a key of `frames.FORMS`).
        slots: What fills their slots, `answer` and `transcript` included.
        attribute, label: The deterministic answer where there is one.
        arousal: 0..1, of the stretch that is asked about.
    """

    form: str
    slots: Mapping[str, str] = field(default_factory=dict)
    attribute: str | None = None
    label: str | None = None
    arousal: float | None = None


# ---- direct questions ------------------------------------------------------------------------------------------------------------


def shares(clip: Clip, attribute: str) -> dict[str, float]:
    """The share of the labelled time that each category of an attribute fills, largest first, ties to the earlier."""
    found = category_shares(clip.segments, attribute)
    return {name: found[name] for name in sorted(found, key=lambda name: -found[name])}


def dominant_emotion(clip: Clip) -> str | None:
    """The emotion that fills at least `DOMINANT_SHARE` of the labelled time; None without one, or where it is other or unknown."""
    name, share = next(iter(shares(clip, "emotion").items()), ("", 0.0))
    return name if share >= DOMINANT_SHARE and name in EMOTION_WORDS else None


def only_gender(clip: Clip) -> str | None:
    """The gender that does all the speaking; None where segments differ or less than `DOMINANT_SHARE` of their time is labelled."""
    found = {one.id: one.category("gender") for one in clip.segments}
    named = {gender for gender in found.values() if gender is not None}
    labelled_ms = sum(one.duration_ms for one in clip.segments if found[one.id] is not None)
    enough = labelled_ms >= DOMINANT_SHARE * sum(one.duration_ms for one in clip.segments)
    return named.pop() if enough and len(named) == 1 and named <= set(GENDER_WORDS) else None


_LEAST_TURN_MS = 500  # less of another voice is an interjection
_BLOCK = re.compile(r"b\d+/")  # a diariser that hears long recordings in blocks knows its speakers within a block only


def speaker_count(clip: Clip) -> int | None:
    """How many people speak; None unless the speaker of every segment is known, from people or from a diariser.

    A diarised segment in which several speak at once names no speaker of its own; its turns count.
    """
    named: set[str] = set()
    for one in clip.segments:
        if one.speaker is not None:
            named.add(one.speaker)
            continue
        turns = {
            label.category for label in one.of("speaker") if label.category and label.end_ms - label.start_ms >= _LEAST_TURN_MS
        }
        if not turns:
            return None
        named |= turns
    blocks = {found.group() for name in named if (found := _BLOCK.match(name))}
    return len(named) if named and len(blocks) < 2 else None


def _transcription(clip: Clip, _: random.Random) -> list[Draft]:
    return [Draft("ASR", {"transcript": clip.transcript})] if clip.transcript else []


def _direct_emotion(clip: Clip, _: random.Random) -> list[Draft]:
    label = dominant_emotion(clip)
    return [Draft("DE", {}, "emotion", label, _mean_arousal(clip.segments))] if label else []


def _direct_gender(clip: Clip, _: random.Random) -> list[Draft]:
    label = only_gender(clip)
    return [Draft("DG", {}, "gender", label)] if label else []


def _direct_speakers(clip: Clip, _: random.Random) -> list[Draft]:
    count = speaker_count(clip)
    return [Draft("DS", {}, "speakers", str(count))] if count and count <= 6 else []


def _mean_arousal(segments: Iterable[Segment]) -> float | None:
    known = [(value, one.duration_ms) for one in segments if (value := one.number("arousal")) is not None]
    return sum(value * ms for value, ms in known) / sum(ms for _, ms in known) if known else None


# ---- content ---------------------------------------------------------------------------------------------------------------------


def _content(clip: Clip, rng: random.Random) -> list[Draft]:
    """Questions from the facts of known sentences; for any other English transcript, questions for a missing word."""
    facts = [fact for segment in clip.segments for fact in facts_of(segment.transcript or "")]
    answers: dict[str, set[str]] = {}
    for fact in facts:
        answers.setdefault(fact.question_stem, set()).add(fact.answer)
    known = [Draft("C.fact", {"stem": stem, "answer": said.pop()}) for stem, said in answers.items() if len(said) == 1]
    found = known or [*_missing_words(clip), *_last_word(clip)]
    rng.shuffle(found)
    return found


def _missing_words(clip: Clip) -> Iterator[Draft]:
    """Content words beside words of the same segment that stand next to no other word anywhere in the clip."""
    spoken = [_spoken(one) for one in clip.segments]
    asked: set[str] = set()
    for length in _CONTEXT_WORDS:
        for form, before in (("C.after", False), ("C.before", True)):
            neighbours: dict[str, dict[str, Draft]] = {}
            for raw in spoken:
                words, shown = _plain(raw), _shown(raw)
                for at in range(len(words) - length):
                    start, target = (at + 1, at) if before else (at, at + length)
                    context = " ".join(words[start : start + length])
                    draft = Draft(form, {"context": " ".join(shown[start : start + length]), "answer": shown[target]})
                    neighbours.setdefault(context, {}).setdefault(words[target], draft)
            for context, found in neighbours.items():
                (word, draft), *others = found.items()
                if not others and word not in context.split() and word not in asked and _is_content(word):
                    asked.add(word)
                    yield draft


def _last_word(clip: Clip) -> Iterator[Draft]:
    raw = _spoken(clip.segments[-1])
    if raw and _is_content(_plain(raw)[-1]):
        yield Draft("C.last", {"answer": _shown(raw)[-1]})


# ---- questions in context --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anchor:
    """Words that lead to one segment of a clip.

    Attributes:
        suffix: Which forms of wordings fit: "" for `text` as in "the train", ".word" for a word to quote because all that is known is that
            it is said, ".time" for one that is said in several segments.
        at: Index of its last word among the words of the segment.
        time: With ".time": "first" or "last", the one that is meant.
    """

    suffix: str
    text: str
    at: int
    time: str = ""

    @property
    def slots(self) -> dict[str, str]:
        """What fills the slots of wordings."""
        return {"anchor": self.text, "time": self.time} if self.time else {"anchor": self.text}


def anchors(clip: Clip, index: int) -> list[Anchor]:
    """The anchors of one segment of a clip, all of the best sort that it has.

    The topics of known sentences; else noun phrases; else content words; all of them in this segment only. Else content words that are
    said here for the first or for the last time (acted corpora repeat the same few sentences).
    """
    transcript = clip.segments[index].transcript or ""
    raw = _spoken(clip.segments[index])
    words, shown = _plain(raw), _shown(raw)
    earlier = {word for one in clip.segments[:index] for word in _plain(_spoken(one))}
    later = {word for one in clip.segments[index + 1 :] for word in _plain(_spoken(one))}
    once = [at for at, word in enumerate(words) if _is_content(word) and words.count(word) == 1]
    unique = [at for at in once if words[at] not in earlier | later]
    topics = [line.topic.split() for one in re.split(r"(?<=\.)\s+", transcript) if (line := line_of(one))]
    return (
        [Anchor("", " ".join(topic), at) for topic in topics for at in unique if words[at + 1 - len(topic) : at + 1] == topic]
        or [Anchor("", phrase, at) for at in unique if (phrase := _noun_phrase(raw, words, at))]
        or [Anchor(".word", shown[at], at) for at in unique]
        or [Anchor(".time", shown[at], at, "first") for at in once if words[at] not in earlier]
        or [Anchor(".time", shown[at], at, "last") for at in once if words[at] not in later]
    )


def _noun_phrase(raw: Sequence[str], words: Sequence[str], at: int) -> str | None:
    """A word with its determiner ("their sister" for "my sister") where it cannot be an adjective: a function word or stop follows."""
    ends = at + 1 == len(words) or raw[at].endswith(_STOPS) or words[at + 1] in STOP_WORDS
    determiner = words[at - 1] if at else ""
    if not ends or determiner not in _ARTICLES | _POSSESSIVES:
        return None
    return f"their {words[at]}" if determiner in _POSSESSIVES else f"the {words[at]}"


def _contextual_emotion(clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    """A segment of another emotion than the clip's most frequent one comes first; then emotions not yet asked about.

    A segment is asked about only at words whose own window agrees with the segment as a whole.
    """
    overall = next(iter(shares(clip, "emotion")), None)
    made = _in_context("CE", "emotion", EMOTION_WORDS, clip, rng, require_contrast=require_contrast)
    first = next((at for at, draft in enumerate(made) if draft.label != overall), 0)
    return _unlike_first([*made[first : first + 1], *made[:first], *made[first + 1 :]])


def _contextual_gender(clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    return _unlike_first(_in_context("CG", "gender", GENDER_WORDS, clip, rng, require_contrast=require_contrast))


def _in_context(
    form: str, attribute: str, known: Container[str], clip: Clip, rng: random.Random, *, require_contrast: bool
) -> list[Draft]:
    """One draft for each segment that has a known label and an anchor, in random order."""
    labels = [one.category(attribute) for one in clip.segments]
    if len(labels) < 2 or (require_contrast and len({one for one in labels if one in known}) < 2):
        return []
    made = []
    for index, (segment, label) in enumerate(zip(clip.segments, labels, strict=True)):
        if label not in known:
            continue
        heard = [getattr(tone, attribute) for tone in tones(segment)]
        fitting = [one for one in anchors(clip, index) if not heard or heard[one.at] == label]
        if fitting:
            chosen = rng.choice(fitting)
            made.append(Draft(f"{form}{chosen.suffix}", chosen.slots, attribute, label, segment.number("arousal")))
    rng.shuffle(made)
    return made


def _unlike_first(made: Sequence[Draft]) -> list[Draft]:
    """The first draft of each label before the second of any; otherwise in the order given."""
    seen: dict[str | None, int] = {}
    ranked = []
    for at, draft in enumerate(made):
        seen[draft.label] = seen.get(draft.label, 0) + 1
        ranked.append((seen[draft.label], at, draft))
    return [draft for _, _, draft in sorted(ranked, key=lambda one: one[:2])]


def _spoken(segment: Segment) -> list[str]:
    """The words of a segment as written, one for each of `segment.words` where there are any."""
    return [one.text for one in segment.words] if segment.words else (segment.transcript or "").split()


def _plain(raw: Sequence[str]) -> list[str]:
    """Lower case without punctuation, one for each word; "-" where nothing is left."""
    return ["".join(tokens(one)) or "-" for one in raw]


def _shown(raw: Sequence[str]) -> list[str]:
    """The words as a question quotes them: without punctuation, and without the capital of the first."""
    bare = [one.strip('.,;:!?"“”()…') for one in raw]
    return [one if at or one.startswith(("I'", "I’")) or one == "I" else one[:1].lower() + one[1:] for at, one in enumerate(bare)]


def _is_content(word: str) -> bool:
    """Whether a word can be asked for or named: no function word, no label word (it would give the answer away), no letter salad."""
    return (
        len(word) >= 3
        and word.isalpha()
        and word not in STOP_WORDS
        and not any(labels_in(word, one) for one in ("emotion", "gender"))
    )


_OUT_OF_CONTEXT: Mapping[str, Callable[[Clip, random.Random], list[Draft]]] = {
    "ASR": _transcription,
    "C": _content,
    "DE": _direct_emotion,
    "DG": _direct_gender,
    "DS": _direct_speakers,
}

KINDS: tuple[Kind, ...] = ("ASR", "C", "DE", "DG", "DS", "CE", "CG")
"""The kinds that can be asked about; CS needs diarised speech and comes later."""


def drafts(kind: Kind, clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    """What can be asked about a clip, best first; `kind` is one of `KINDS`.

    Args:
        kind: Of question.
        clip: Its segments' labels are the truth, whoever gave them.
        rng: All randomness is from here.
        require_contrast: Ask CE and CG only where the clip's segments differ in emotion or gender.
    """
    if kind == "CE":
        return _contextual_emotion(clip, rng, require_contrast=require_contrast)
    if kind == "CG":
        return _contextual_gender(clip, rng, require_contrast=require_contrast)
    return _OUT_OF_CONTEXT[kind](clip, rng)
