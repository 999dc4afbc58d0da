"""Wordings of replies to a speaker, of the questions that ask for one, and what a test asks in place of them. All of it is our own.

A reply has up to three parts, after the mechanisms of EPITOME (Sharma et al., 2020): a reaction (what the listener feels), an
interpretation (what the listener understands of the speaker) and an exploration (what the listener asks on). Each is weak (general) or strong
(it names the feeling, or what is spoken of). A weak reaction is joined to an interpretation by a comma and a strong one by ", and", so an
interpretation begins in lower case unless it begins with "I". The one slot {topic} is what is spoken of, as an object ("the train"), or
"this".

No wording names an emotion that is not the speaker's, none names a gender, and the training's and the test's have none in common.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

from undertone.generate.frames.form import FrameSet
from undertone.records import content_hash

ANYTHING = "this"
"""The topic where none can be named."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The wordings of one mechanism; where there is no strong one, a weak one stands for it."""

    weak: tuple[str, ...]
    strong: tuple[str, ...] = ()

    def of(self, level: int) -> tuple[str, ...]:
        """The wordings of a level of EPITOME: 1 weak, 2 strong."""
        return self.strong if level == 2 and self.strong else self.weak


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one who sounds a certain way is replied to."""

    reaction: Part
    interpretation: Part
    exploration: Part


TRAIN: Mapping[str, Manner] = MappingProxyType(
    {
        "angry": Manner(
            reaction=Part(
                weak=("That is not fair", "Goodness", "I hear you"),
                strong=(
                    "I'm sorry that you have to put up with this",
                    "I'm on your side",
                    "I hate that this happened to you",
                    "I feel with you, this is too much",
                ),
            ),
            interpretation=Part(
                weak=("I can see why you say it like that", "I understand", "anyone would feel that way"),
                strong=(
                    "it sounds as if you have had enough of {topic}",
                    "it must be hard to keep quiet about {topic}",
                    "you clearly feel let down over {topic}",
                    "it seems that nobody listened to you about {topic}",
                    "what happened with {topic} must have crossed a line for you",
                ),
            ),
            exploration=Part(
                weak=("What happened?", "What would you like to do now?", "How did it come to this?"),
                strong=(
                    "What about {topic} bothers you the most?",
                    "Who should have done something about {topic}?",
                    "What would put things right with {topic}?",
                    "Have you told anyone how you feel about {topic}?",
                    "How often does it go like this with {topic}?",
                ),
            ),
        ),
        "disgusted": Manner(
            reaction=Part(
                weak=("Ugh", "Oh no", "That sounds bad"),
                strong=(
                    "I'm sorry that you had to go through that",
                    "I feel ill just hearing it",
                    "I would want to get away from it too",
                    "I'm so sorry, nobody should have to face that",
                ),
            ),
            interpretation=Part(
                weak=("I can see why you would rather not", "I think I understand", "I get it"),
                strong=(
                    "it sounds as if you cannot stand {topic} any more",
                    "you must want to keep well away from {topic}",
                    "something about {topic} clearly turned your stomach",
                    "it must be unpleasant even to speak of {topic}",
                    "you seem to have seen more of {topic} than you wanted",
                ),
            ),
            exploration=Part(
                weak=("What was it?", "What happened?", "Are you all right now?"),
                strong=(
                    "What was it about {topic} that got to you?",
                    "How did you end up so close to {topic}?",
                    "Can you keep away from {topic} for a while?",
                    "What would you change about {topic}?",
                    "Was it always like this with {topic}?",
                ),
            ),
        ),
        "fearful": Manner(
            reaction=Part(
                weak=("Oh no", "Oh", "Take a deep breath"),
                strong=(
                    "I'm here with you",
                    "I'm so sorry that you have to face this",
                    "I want you to be safe",
                    "I feel with you",
                ),
            ),
            interpretation=Part(
                weak=("I can imagine what it is like", "I understand", "that would not let me sleep either"),
                strong=(
                    "it sounds as if you do not know what will come of {topic}",
                    "thinking of {topic} must keep you awake",
                    "you seem to expect the worst from {topic}",
                    "it must be hard to feel safe when it comes to {topic}",
                    "you must be bracing yourself for {topic}",
                ),
            ),
            exploration=Part(
                weak=("What is going on?", "What might happen?", "Are you safe right now?"),
                strong=(
                    "What is the worst that could come of {topic}?",
                    "What would help you feel safer about {topic}?",
                    "Who can be with you when it comes to {topic}?",
                    "What do you think will happen with {topic}?",
                    "When did you begin to feel this way about {topic}?",
                ),
            ),
        ),
        "happy": Manner(
            reaction=Part(
                weak=("Lovely", "Oh, nice", "That is good to hear"),
                strong=(
                    "I'm so happy for you",
                    "I'm really glad to hear this",
                    "I have to smile with you",
                    "I'm delighted for you",
                ),
            ),
            interpretation=Part(
                weak=("I can hear that it does you good", "I can see why", "you deserve it"),
                strong=(
                    "you must have looked forward to {topic}",
                    "it sounds as if it could not have gone better with {topic}",
                    "it must feel good to think of {topic}",
                    "I can tell how much you care about {topic}",
                    "you seem full of life when you speak of {topic}",
                ),
            ),
            exploration=Part(
                weak=("What comes next?", "How did that happen?", "How will you celebrate?"),
                strong=(
                    "What do you like best about {topic}?",
                    "Who will you tell about {topic}?",
                    "How did it come about with {topic}?",
                    "What are you looking forward to about {topic}?",
                    "When did you first hear about {topic}?",
                ),
            ),
        ),
        "neutral": Manner(
            reaction=Part(weak=("All right", "I see", "Good to know")),
            interpretation=Part(
                weak=("that makes sense", "I follow you", "so that is how it is"),
                strong=(
                    "it sounds as if all is as it should be with {topic}",
                    "you seem to have thought about {topic}",
                    "so you are keeping an eye on {topic}",
                    "so that is how it stands with {topic}",
                    "it sounds as if there is nothing unusual about {topic}",
                ),
            ),
            exploration=Part(
                weak=("And then?", "What comes next?", "Is there anything that I can do?"),
                strong=(
                    "What else should I know about {topic}?",
                    "How did it go with {topic} before?",
                    "What will you do about {topic}?",
                    "Do you need anything for {topic}?",
                    "Is that how you like it with {topic}?",
                ),
            ),
        ),
        "sad": Manner(
            reaction=Part(
                weak=("Oh dear", "Oh no", "That is hard"),
                strong=(
                    "I'm so sorry",
                    "I feel for you",
                    "My heart goes out to you",
                    "I wish that I could carry some of it for you",
                ),
            ),
            interpretation=Part(
                weak=("I can tell that it is not easy for you", "I think I understand", "I can imagine"),
                strong=(
                    "what you say about {topic} must weigh on you",
                    "it must hurt to talk about {topic}",
                    "you seem to be carrying a lot because of {topic}",
                    "it sounds as if you had hoped for something else from {topic}",
                    "you must feel alone when you think of {topic}",
                ),
            ),
            exploration=Part(
                weak=("What happened?", "Do you want to tell me more?", "How long has it been like this?"),
                strong=(
                    "What is it about {topic} that hurts the most?",
                    "What do you miss most when you think of {topic}?",
                    "Who is with you while you deal with {topic}?",
                    "What would make it easier with {topic}?",
                    "Has it been this hard with {topic} for long?",
                ),
            ),
        ),
        "surprised": Manner(
            reaction=Part(
                weak=("Wow", "Oh", "Really"),
                strong=(
                    "I did not see that coming either",
                    "I can hardly believe it myself",
                    "I'm as amazed as you are",
                    "I have to catch my breath too",
                ),
            ),
            interpretation=Part(
                weak=("I can see why you did not expect it", "that must be quite something", "I would not have thought so either"),
                strong=(
                    "you clearly expected something else from {topic}",
                    "the news about {topic} must have come out of nowhere",
                    "it sounds as if nobody told you about {topic}",
                    "it must take a moment to get used to the news about {topic}",
                    "you seem to see {topic} with new eyes",
                ),
            ),
            exploration=Part(
                weak=("What happened?", "How did you find out?", "What do you make of it now?"),
                strong=(
                    "What did you expect from {topic}?",
                    "Who told you about {topic}?",
                    "How did you find out about {topic}?",
                    "What does it change for you about {topic}?",
                    "When did you hear about {topic}?",
                ),
            ),
        ),
    }
)

TEST: Mapping[str, Manner] = MappingProxyType(
    {
        "angry": Manner(
            reaction=Part(
                weak=("That is too much", "Oh, that is not right"),
                strong=("I'm sorry that this happened to you", "I feel that this is not fair to you"),
            ),
            interpretation=Part(
                weak=("I can see why you feel that way", "I understand you"),
                strong=(
                    "it must be hard to put up with {topic}",
                    "it sounds as if you feel let down about {topic}",
                    "you clearly have had enough of {topic}",
                ),
            ),
            exploration=Part(
                weak=("How did that come about?", "What do you want to do now?"),
                strong=(
                    "What bothers you the most about {topic}?",
                    "Who could put things right with {topic}?",
                    "What happened with {topic} that made you feel like this?",
                ),
            ),
        ),
        "disgusted": Manner(
            reaction=Part(
                weak=("Oh, that is bad", "Ugh, no"),
                strong=("I'm sorry that you had to face that", "I would keep away from it too"),
            ),
            interpretation=Part(
                weak=("I understand why you would rather not", "I think I get it"),
                strong=(
                    "it must be unpleasant to think of {topic}",
                    "it sounds as if you want to get away from {topic}",
                    "you clearly cannot stand {topic}",
                ),
            ),
            exploration=Part(
                weak=("What was that?", "Are you feeling all right now?"),
                strong=(
                    "What about {topic} turned your stomach?",
                    "What got to you about {topic}?",
                    "How did it get like this with {topic}?",
                ),
            ),
        ),
        "fearful": Manner(
            reaction=Part(
                weak=("Oh, take a breath", "Oh no, really"),
                strong=("I'm with you", "I'm sorry that you have to go through this"),
            ),
            interpretation=Part(
                weak=("I can imagine that", "I understand what it is like"),
                strong=(
                    "you do not seem to feel safe when it comes to {topic}",
                    "it sounds as if you expect the worst from {topic}",
                    "it must be hard to sleep when you think of {topic}",
                ),
            ),
            exploration=Part(
                weak=("What do you think might happen?", "Are you safe?"),
                strong=(
                    "What could happen with {topic}?",
                    "What would help you when it comes to {topic}?",
                    "What is the worst about {topic} for you?",
                ),
            ),
        ),
        "happy": Manner(
            reaction=Part(
                weak=("Oh, that is good", "How nice"),
                strong=("I'm so glad for you", "I'm happy to hear this"),
            ),
            interpretation=Part(
                weak=("I can tell that it does you good", "you really deserve it"),
                strong=(
                    "it sounds as if you had looked forward to {topic}",
                    "I can hear how much you care about {topic}",
                    "it must feel good to speak of {topic}",
                ),
            ),
            exploration=Part(
                weak=("What will you do next?", "How did it come about?"),
                strong=(
                    "What is best about {topic} for you?",
                    "Who have you told about {topic}?",
                    "What do you look forward to about {topic}?",
                ),
            ),
        ),
        "neutral": Manner(
            reaction=Part(weak=("Right, I see", "That is good to know")),
            interpretation=Part(
                weak=("that is how it is", "it makes sense"),
                strong=(
                    "so all is as it should be with {topic}",
                    "it sounds as if you have thought about {topic}",
                    "so there is nothing unusual about {topic}",
                ),
            ),
            exploration=Part(
                weak=("What will you do then?", "Do you need anything?"),
                strong=(
                    "What else is there about {topic}?",
                    "What comes next with {topic}?",
                    "Is there anything that I should know about {topic}?",
                ),
            ),
        ),
        "sad": Manner(
            reaction=Part(
                weak=("Oh, that is hard", "Oh dear, no"),
                strong=("I'm so sorry to hear this", "I really feel for you"),
            ),
            interpretation=Part(
                weak=("I can tell that it is hard for you", "it is not easy, I understand"),
                strong=(
                    "it must weigh on you when you think of {topic}",
                    "what you say about {topic} must hurt",
                    "you seem to have hoped for something else from {topic}",
                ),
            ),
            exploration=Part(
                weak=("Do you want to tell me what happened?", "Has it been like this for long?"),
                strong=(
                    "What hurts the most about {topic}?",
                    "What would make it easier for you with {topic}?",
                    "What do you miss most about {topic}?",
                ),
            ),
        ),
        "surprised": Manner(
            reaction=Part(
                weak=("Oh, wow", "Oh, really"),
                strong=("I'm amazed too", "I can hardly believe it either"),
            ),
            interpretation=Part(
                weak=("I would not have thought so", "I can see that you did not expect it"),
                strong=(
                    "it sounds as if you expected something else from {topic}",
                    "it must take a moment to get used to {topic}",
                    "you clearly did not see the news about {topic} coming",
                ),
            ),
            exploration=Part(
                weak=("How did you hear of it?", "What do you think of it now?"),
                strong=(
                    "What had you expected from {topic}?",
                    "How did you hear about {topic}?",
                    "What changes for you about {topic}?",
                ),
            ),
        ),
    }
)

MANNERS: Mapping[FrameSet, Mapping[str, Manner]] = MappingProxyType({"train": TRAIN, "test": TEST})

MOODS: Mapping[str, str] = MappingProxyType(
    {
        "angry": "neutral",
        "disgusted": "neutral",
        "fearful": "neutral",
        "happy": "happy",
        "neutral": "neutral",
        "sad": "sad",
        "surprised": "surprised",
    }
)
"""Emotion of the speaker -> that of the voice of a reply (`think.LabelThought.reply_emotion`): joy, sorrow and surprise are shared, and who is
angry, disgusted or frightened is met calmly. The drawing of these lines is ours."""

TEST_QUESTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "reply": (
            "Reply to the person who is speaking.",
            "What do you say to the speaker?",
            "Answer the speaker in a way that suits the tone of voice.",
            "Listen to the speaker and respond.",
        ),
        "think": (
            "Think about the words and the voice, and then reply to the person who is speaking.",
            "Consider what is said and how it is said, then answer the speaker.",
            "Think about what you hear, then say what you would say to the speaker.",
        ),
        "continue": (
            "Continue as the speaker would.",
            "What would the speaker say next?",
            "Go on in the same tone where the speaker stops.",
        ),
    }
)
"""What a benchmark asks; the questions of training are the pools `*_questions.jinja`."""


@functools.cache
def digest() -> str:
    """Changes with every wording here."""
    manners = {frames: {emotion: asdict(one) for emotion, one in table.items()} for frames, table in MANNERS.items()}
    table = {"manners": manners, "moods": dict(MOODS), "questions": dict(TEST_QUESTIONS), "anything": ANYTHING}
    return content_hash(json.dumps(table, sort_keys=True, ensure_ascii=False))
