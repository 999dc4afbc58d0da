"""Dialogues of several spoken turns: what one speaker says in a row, utterance by utterance, with a reply to each.

A dialogue needs consecutive utterances of one speaker, and a strategy sees one clip. A condensed clip *is* a run of consecutive segments of one
recording, so its segments are the turns: no stage has to look across rows, one request gives an LLM the whole dialogue (a later reply may take
up an earlier one), and cache, dry run and checks stay as they are. The price: a dialogue lies within one clip, and so within its length.

Each pair is about one utterance (`Candidate.clip_id`), with the turns before it as history, each with the clip in which it was spoken
(`Turn.clip_id`); those clips are a table of their own (material "segments", or the references' utterances). All are of one recording and so
of one split. The last word of a pair is the user's, and its answer the target; whatever ends otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from undertone.chat import read_json
from undertone.condense.clips import clip_of
from undertone.generate.askable import dominant_emotion
from undertone.generate.evidence import escape
from undertone.generate.protocol import Candidate, Request
from undertone.generate.replies import in_english, write_reply
from undertone.generate.strategies.base import drawing, usable_reply
from undertone.generate.strategies.replying import Replying
from undertone.records import Clip, Segment, Turn

LEGEND = "Each line is one turn of the same speaker: its number, in brackets the emotion of the voice, and behind them the words."


class WrittenReplies(BaseModel):
    """The reply that is asked for."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    replies: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)


class Dialogue(Replying):
    """Two to four spoken turns of one speaker with a reply to each; the question hides what the voice shows.

    A turn is a segment of the clip in which one emotion prevails and words are said; a dialogue is a run of them by one voice, as far as
    speakers and genders are known. Clips without such a run are passed over, and by the grammar those that are known not to be in English.

    Attributes:
        min_turns, max_turns: How many turns a dialogue has, drawn for each.
        min_turn_ms: A shorter segment is no turn; at least what the utterances' own table asks for (`references.utterances.rule.min_ms`).
        max_words: Of a reply, as the LLM is asked to keep to.
        language: Of the replies, as an English word; None for the language that is spoken.
    """

    name: ClassVar[str] = "dialogue"
    offline: ClassVar[bool] = True
    templates: ClassVar[tuple[str, ...]] = ("dialogue.jinja", "clip.jinja", "reply_questions.jinja")
    replies: ClassVar[tuple[type[BaseModel], ...]] = (WrittenReplies,)

    min_turns: int = Field(default=2, ge=2, le=4)
    max_turns: int = Field(default=4, ge=2, le=4)
    min_turn_ms: int = Field(default=500, gt=0)
    max_words: int = Field(default=40, ge=5)
    language: str | None = None

    @field_validator("max_turns")
    @classmethod
    def _in_order(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_turns", 0)
        if value < least:
            raise ValueError(f"expected at least min_turns, {least}")
        return value

    def evidence(self, clip: Clip) -> str:
        """The segments of a clip as numbered turns."""
        numbered = enumerate((one_turn(clip, segment) for segment in clip.segments), start=1)
        return "\n".join(f"{at}. ({dominant_emotion(one) or 'no one emotion'}) {_words(one)}" for at, one in numbered)

    def dialogues(self, clip: Clip, *, seed: int) -> list[tuple[int, ...]]:
        """The dialogues that a clip holds, each as the indices of its segments: consecutive, of one voice, none in two of them."""
        rng, found = drawing(self, clip, seed, "turns"), []
        for run in self._runs(clip):
            left = run
            while len(left) >= self.min_turns:
                count = rng.randint(self.min_turns, min(self.max_turns, len(left)))
                found.append(tuple(left[:count]))
                left = left[count:]
        return found

    def _runs(self, clip: Clip) -> Iterator[list[int]]:
        run: list[int] = []
        for at, segment in enumerate(clip.segments):
            turn = one_turn(clip, segment)
            usable = segment.duration_ms >= self.min_turn_ms and dominant_emotion(turn) is not None and bool(_words(turn))
            if run and not (usable and all(_one_voice(clip.segments[one], segment) for one in run)):
                yield run
                run = []
            if usable:
                run.append(at)
        yield run

    def requests(self, clip: Clip, *, seed: int) -> list[Request]:
        """One request for each dialogue."""
        made = []
        for indices in self.dialogues(clip, seed=seed):
            turns = [one_turn(clip, clip.segments[at]) for at in indices]
            spoken = _clip(clip, [clip.segments[at] for at in indices])
            heard = [dominant_emotion(one) for one in turns]
            prompt = self.rendered(spoken, legend=LEGEND, turns=heard, max_words=self.max_words, language=self.language)
            about = {"turns": " ".join(map(str, indices)), "question": self._question(clip, seed, indices)}
            made.append(Request(prompt=prompt, schema=WrittenReplies, about=about))
        return made

    def _question(self, clip: Clip, seed: int, indices: Sequence[int]) -> str:
        return self.question(clip, seed, "reply", f"question {indices[0]}")

    def read(self, clip: Clip, request: Request, reply: str) -> list[Candidate]:
        """A pair for each turn.

        Raises:
            ValueError: The reply does not fit, one of its replies refuses, or they are more or fewer than the turns.
        """
        indices = [int(one) for one in request.about["turns"].split()]
        said = read_json(reply, WrittenReplies).replies
        if len(said) != len(indices):
            fault = "ends with the assistant speaking twice" if len(said) > len(indices) else "leaves a turn without a reply"
            raise ValueError(f"the dialogue {fault}: {len(said)} replies to {len(indices)} turns; expected one to each")
        return _pairs(clip, indices, request.about["question"], [usable_reply(one) for one in said])

    def written(self, clip: Clip, *, seed: int) -> list[Candidate]:
        """The dialogues with the grammar's replies; each knows its own turn alone, and none is said twice in one dialogue."""
        if not in_english(clip):
            return []
        made = []
        for indices in self.dialogues(clip, seed=seed):
            said: list[str] = []
            for at in indices:
                said.append(self._unsaid(one_turn(clip, clip.segments[at]), seed, said))
            made += _pairs(clip, indices, self._question(clip, seed, indices), said)
        return made

    def _unsaid(self, turn: Clip, seed: int, said: Sequence[str]) -> str:
        rng = drawing(self, turn, seed, "reply")
        told = self.told(turn, dominant_emotion(turn) or "neutral", seed)  # a turn has one
        while (reply := write_reply(turn, told, rng, frames=self.frames).text) in said:
            pass  # four turns do not exhaust the wordings
        return reply


def one_turn(clip: Clip, segment: Segment) -> Clip:
    """A segment of a clip as a clip of its own, as tables of utterances have it."""
    return _clip(clip, [segment])


def _clip(clip: Clip, segments: Sequence[Segment]) -> Clip:
    return clip_of(segments, uri=clip.uri, source=clip.source, language=clip.language, licence=clip.licence, split=clip.split)


def _words(turn: Clip) -> str:
    return escape(" ".join(turn.transcript.split()))


def _one_voice(one: Segment, other: Segment) -> bool:
    """Whether two segments may be of one speaker: nobody knows that they are not."""
    speakers = {name for name in (one.speaker, other.speaker) if name is not None}
    genders = {name for name in (one.category("gender"), other.category("gender")) if name is not None}
    return len(speakers) < 2 and len(genders) < 2


def _pairs(clip: Clip, indices: Sequence[int], question: str, said: Sequence[str]) -> list[Candidate]:
    made: list[Candidate] = []
    history: list[Turn] = []
    for at, reply in zip(indices, said, strict=True):
        turn = one_turn(clip, clip.segments[at])
        made.append(
            Candidate(
                kind="REPLY",
                question=question,
                answer=reply,
                label_attribute="emotion",
                label=dominant_emotion(turn),
                history=tuple(history),
                clip_id=turn.id,
            )
        )
        history.append(Turn(question=question, answer=reply, clip_id=turn.id))
    return made
