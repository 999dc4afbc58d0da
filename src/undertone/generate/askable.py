"""What can be asked about a clip, and the right answer, before any wording.

A question in context (CE, CG) names an anchor: words that occur in exactly one segment of the clip, or a word at its first or last
occurrence. The words lead to the segment, the voice gives the answer. It is asked only where the segments of the clip differ in what
is asked for (`require_contrast`), because elsewhere the clip's overall emotion would answer it and the context would be decoration.

A question in context about speakers (CS) names two anchors and asks whether one person or two people are heard there, or one anchor and
asks how many people have spoken by then. CP-Bench (2509.16589) has the kind as content and number of speakers; its wordings are not known
to us. How many by then is asked only where that is not the number in the whole clip, and never at the first segment, where no one needs to
listen; of two anchors one person is as often the answer as two, though two people who alternate are oftener two than one.

More is asked on request (`rich`): how emotion or energy changes from one anchor to another, what is spoken of in the one part that
sounds angry, or by the one man. Such answers are composed of several things or are words of the clip: they have no label and are judged
by their reference, because a class of one of the two anchors would call an answer right that tells half of the change.

Nobody is asked about the emotions other and unknown.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from undertone.corpora.scripts import facts_of, line_of
from undertone.generate.evidence import tones
from undertone.generate.facts import stated
from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS, STOP_WORDS, labels_in, tokens
from undertone.records import Clip, Kind, Segment, category_shares

DOMINANT_SHARE = 0.6
"""Share of the labelled time that one emotion must fill for a direct question to have one answer."""

CLEAR_CHANGE = 0.25
"""Difference of arousal (0..1) from which the energy of a voice is said to have changed; the span between "a little" and "very" is 0.35."""

MOST_SPEAKERS = 6

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
        gender: Of whoever speaks there, where it is known.
        points: The anchors of a question that names them as moments.
        heard: What is heard at each of two points.
        outcome: Which of the answers of a form that has `outcomes`.
    """

    form: str
    slots: Mapping[str, str] = field(default_factory=dict)
    attribute: str | None = None
    label: str | None = None
    arousal: float | None = None
    gender: str | None = None
    points: tuple[Anchor, ...] = ()
    heard: tuple[Heard, ...] = ()
    outcome: str | None = None


@dataclass(frozen=True)
class Heard:
    """A class that is heard at one point, and how strongly (arousal, 0..1)."""

    label: str
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
        found = _speakers_of(one)
        if not found:
            return None
        named |= found
    blocks = {block.group() for name in named if (block := _BLOCK.match(name))}
    return len(named) if named and len(blocks) < 2 else None


def _speakers_of(segment: Segment) -> frozenset[str]:
    """Who is known to speak in a segment."""
    if segment.speaker is not None:
        return frozenset({segment.speaker})
    turns = (one for one in segment.of("speaker") if one.end_ms - one.start_ms >= _LEAST_TURN_MS)
    return frozenset(one.category for one in turns if one.category)


def speaker_counts(clip: Clip) -> frozenset[str]:
    """What a question about speakers at some moments of a clip can be answered with: one up to all of them; empty where they are unknown."""
    return frozenset(str(one) for one in range(1, (speaker_count(clip) or 0) + 1))


def _transcription(clip: Clip, _: random.Random) -> list[Draft]:
    return [Draft("ASR", {"transcript": clip.transcript})] if clip.transcript else []


def _direct_emotion(clip: Clip, _: random.Random) -> list[Draft]:
    label = dominant_emotion(clip)
    return [Draft("DE", {}, "emotion", label, _mean_arousal(clip.segments), only_gender(clip))] if label else []


def _direct_gender(clip: Clip, _: random.Random) -> list[Draft]:
    label = only_gender(clip)
    return [Draft("DG", {}, "gender", label)] if label else []


def _direct_speakers(clip: Clip, _: random.Random) -> list[Draft]:
    count = speaker_count(clip)
    if count is None or count > MOST_SPEAKERS or (count == 1 and len(clip.segments) == 1):  # a single utterance has one by nature
        return []
    return [Draft("DS", {}, "speakers", str(count))]


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


def _rich_content(clip: Clip, rng: random.Random) -> list[Draft]:
    """What plain sentences state (`facts`) first, then missing words in more ways; no word is asked for twice."""
    answers: dict[str, set[str]] = {}
    for fact in (fact for segment in clip.segments for fact in stated(segment.transcript or "")):
        answers.setdefault(fact.question_stem, set()).add(fact.answer)
    known = [Draft("C.fact", {"stem": stem, "answer": said.pop()}) for stem, said in answers.items() if len(said) == 1]
    cloze = [*_missing_words(clip), *_between(clip), *_first_word(clip), *_last_word(clip)]
    rng.shuffle(known)
    rng.shuffle(cloze)
    asked: set[str] = set()
    fresh = []
    for draft in (*known, *cloze):
        wanted = set(tokens(draft.slots["answer"]))
        if draft.form == "C.fact" or not wanted & asked:
            fresh.append(draft)
        asked |= wanted
    return fresh


def _between(clip: Clip) -> Iterator[Draft]:
    """Content words by the word before and the word after, where these two stand around no other word of the clip."""
    gaps: dict[tuple[str, str], dict[str, Draft]] = {}
    for segment in clip.segments:
        raw = _spoken(segment)
        words, shown = _plain(raw), _shown(raw)
        for at in range(1, len(words) - 1):
            draft = Draft("C.between", {"before": shown[at - 1], "after": shown[at + 1], "answer": shown[at]})
            gaps.setdefault((words[at - 1], words[at + 1]), {}).setdefault(words[at], draft)
    for around, found in gaps.items():
        (word, draft), *others = found.items()
        if not others and word not in around and "-" not in around and _is_content(word):
            yield draft


def _first_word(clip: Clip) -> Iterator[Draft]:
    raw = _spoken(clip.segments[0])
    if raw and _is_content(_plain(raw)[0]):
        yield Draft("C.first", {"answer": _shown(raw)[0]})


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
    if not _differs(clip, attribute, known, require_contrast=require_contrast):
        return []
    made = []
    for place in _places(clip, attribute, known, rng):
        chosen, segment = place.anchor, place.segment
        gender = segment.category("gender") if attribute == "emotion" else None
        made.append(Draft(f"{form}{chosen.suffix}", chosen.slots, attribute, place.label, segment.number("arousal"), gender=gender))
    rng.shuffle(made)
    return made


def _differs(clip: Clip, attribute: str, known: Container[str], *, require_contrast: bool) -> bool:
    """Whether a clip has a context: several segments and, where contrast is required, of several known labels."""
    labels = {label for one in clip.segments if (label := one.category(attribute)) in known}
    return len(clip.segments) > 1 and (len(labels) > 1 or not require_contrast)


@dataclass(frozen=True)
class _Place:
    """A segment with a known label, one anchor that leads to it, and all that do."""

    segment: Segment
    label: str
    anchor: Anchor
    anchors: tuple[Anchor, ...]

    @property
    def heard(self) -> Heard:
        return Heard(self.label, self.segment.number("arousal"))


def _places(clip: Clip, attribute: str, known: Container[str], rng: random.Random) -> list[_Place]:
    """In the order of the clip; a segment counts at words only whose own window agrees with it as a whole."""
    found = []
    for index, segment in enumerate(clip.segments):
        label = segment.category(attribute)
        if label is None or label not in known:
            continue
        heard = [getattr(tone, attribute) for tone in tones(segment)]
        fitting = [one for one in anchors(clip, index) if not heard or heard[one.at] == label]
        if fitting:
            found.append(_Place(segment, label, rng.choice(fitting), tuple(fitting)))
    return found


def _unlike_first(made: Sequence[Draft]) -> list[Draft]:
    """The first draft of each label before the second of any; otherwise in the order given."""
    seen: dict[str | None, int] = {}
    ranked = []
    for at, draft in enumerate(made):
        seen[draft.label] = seen.get(draft.label, 0) + 1
        ranked.append((seen[draft.label], at, draft))
    return [draft for _, _, draft in sorted(ranked, key=lambda one: one[:2])]


# ---- more in context: two moments, and from the voice to the words ----------------------------------------------------------------


def _rich_emotion(clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    simple = _contextual_emotion(clip, rng, require_contrast=require_contrast)
    places = _places(clip, "emotion", EMOTION_WORDS, rng)
    further = [*_energy(places, rng), *_subject("CE.what", "emotion", places, clip)]
    if _differs(clip, "emotion", EMOTION_WORDS, require_contrast=require_contrast):
        further += _compared("CE.same", places, rng)
        changed = [(one, other) for one, other in itertools.combinations(places, 2) if one.label != other.label]
        if changed:
            further.append(_two(rng.choice(changed), "CE.change"))
    return _mixed(simple, _one_of_two_moments(further, rng), rng)


def _rich_gender(clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    simple = _contextual_gender(clip, rng, require_contrast=require_contrast)
    if not _differs(clip, "gender", GENDER_WORDS, require_contrast=require_contrast):
        return simple
    places = _places(clip, "gender", GENDER_WORDS, rng)
    further = [*_compared("CG.same", places, rng), *_subject("CG.what", "gender", places, clip)]
    return _mixed(simple, _one_of_two_moments(further, rng), rng)


def _two(places: tuple[_Place, _Place], form: str, outcome: str | None = None) -> Draft:
    one, other = places
    return Draft(form, points=(one.anchor, other.anchor), heard=(one.heard, other.heard), outcome=outcome)


def _compared(form: str, places: Sequence[_Place], rng: random.Random) -> list[Draft]:
    """Whether two moments sound the same: as often the same as not, where the clip has both."""
    pairs: dict[str, list[tuple[_Place, _Place]]] = {}
    for one, other in itertools.combinations(places, 2):
        pairs.setdefault("same" if one.label == other.label else "differs", []).append((one, other))
    if not pairs:
        return []
    outcome = rng.choice(sorted(pairs))
    return [_two(rng.choice(pairs[outcome]), form, outcome)]


def _energy(places: Sequence[_Place], rng: random.Random) -> list[Draft]:
    """Two moments whose arousal clearly differs."""
    changes = []
    for one, other in itertools.combinations(places, 2):
        before, after = one.heard.arousal, other.heard.arousal
        if before is not None and after is not None and abs(after - before) >= CLEAR_CHANGE:
            changes.append(_two((one, other), "CE.energy", "more" if after > before else "less"))
    return [rng.choice(changes)] if changes else []


def _subject(form: str, attribute: str, places: Sequence[_Place], clip: Clip) -> list[Draft]:
    """What is spoken of in a part that is the only one to sound so; asked only where that part has one subject."""
    held = [{label.category for label in one.of(attribute)} for one in clip.segments]
    if len(held) < 2 or not all(held):
        return []
    words: Mapping[str, tuple[str, ...]] = EMOTION_WORDS if attribute == "emotion" else GENDER_WORDS
    made = []
    for place in places:
        if sum(place.label in one for one in held) == 1 and [one.suffix for one in place.anchors] == [""]:
            named = words[place.label][0]
            made.append(Draft(form, {"mood": named, "person": named, "answer": place.anchor.text}))
    return made


def _one_of_two_moments(further: list[Draft], rng: random.Random) -> list[Draft]:
    """One question of each sort, about moments and about subjects: a change, a comparison and a rise say the same in other words."""
    rng.shuffle(further)
    moments, subjects = [one for one in further if one.points], [one for one in further if not one.points]
    chosen = [*moments[:1], *subjects[:1]]
    rng.shuffle(chosen)
    return chosen


def _mixed(simple: Sequence[Draft], further: Sequence[Draft], rng: random.Random) -> list[Draft]:
    """By turns, and either first."""
    order = [simple, further] if rng.random() < 0.5 else [further, simple]
    return [one for both in itertools.zip_longest(*order) for one in both if one is not None]


def _contextual_speakers(clip: Clip, rng: random.Random, *, require_contrast: bool = True) -> list[Draft]:
    """One person or two at two moments, and how many by a moment; no answer comes twice in a row where there is another."""
    total = speaker_count(clip)
    if total is None or total > MOST_SPEAKERS or len(clip.segments) < 2 or (require_contrast and total < 2):
        return []
    heard: set[str] = set()
    places: list[tuple[str, Anchor]] = []
    made: list[Draft] = []
    for index, segment in enumerate(clip.segments):
        here = _speakers_of(segment)
        heard |= here
        fitting = [one for one in anchors(clip, index) if not labels_in(one.text, "speakers")]
        if len(here) != 1 or not fitting:
            continue
        chosen = rng.choice(fitting)
        places.append((next(iter(here)), chosen))
        if index and (len(heard) < total or not require_contrast):
            made.append(Draft("CS.count", {}, "speakers", str(len(heard)), points=(chosen,)))
    pairs: dict[str, list[Draft]] = {}
    for (one, first), (other, second) in itertools.combinations(places, 2):
        label = "1" if one == other else "2"
        pairs.setdefault(label, []).append(Draft("CS.pair", {}, "speakers", label, points=(first, second), outcome=label))
    # As many for each answer: two that alternate are oftener two than one.
    most = min(map(len, pairs.values())) if len(pairs) > 1 else max(map(len, pairs.values()), default=0)
    made += [one for label in sorted(pairs) for one in rng.sample(pairs[label], most)]
    rng.shuffle(made)
    answers = sorted({one.label or "" for one in made})
    rng.shuffle(answers)
    by_answer = [[one for one in made if one.label == label] for label in answers]
    return [one for row in itertools.zip_longest(*by_answer) for one in row if one is not None]


# ---- words -----------------------------------------------------------------------------------------------------------------------


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

_IN_CONTEXT: Mapping[str, Callable[..., list[Draft]]] = {
    "CE": _contextual_emotion,
    "CG": _contextual_gender,
    "CS": _contextual_speakers,
}
_RICH_IN_CONTEXT: Mapping[str, Callable[..., list[Draft]]] = {"CE": _rich_emotion, "CG": _rich_gender}

KINDS: tuple[Kind, ...] = ("ASR", "C", "DE", "DG", "DS", "CE", "CG", "CS")
"""The kinds that can be asked about."""


def drafts(kind: Kind, clip: Clip, rng: random.Random, *, require_contrast: bool = True, rich: bool = False) -> list[Draft]:
    """What can be asked about a clip, best first; `kind` is one of `KINDS`.

    Args:
        kind: Of question.
        clip: Its segments' labels are the truth, whoever gave them.
        rng: All randomness is from here.
        require_contrast: Ask in context only where the clip's segments differ in emotion, gender or speaker.
        rich: Ask in more ways, of two moments and from the voice to the words too.
    """
    if kind in _IN_CONTEXT:
        in_context = _RICH_IN_CONTEXT.get(kind, _IN_CONTEXT[kind]) if rich else _IN_CONTEXT[kind]
        return in_context(clip, rng, require_contrast=require_contrast)
    return _rich_content(clip, rng) if rich and kind == "C" else _OUT_OF_CONTEXT[kind](clip, rng)
