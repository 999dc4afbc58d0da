"""The wordings of the grammar: every question and answer that it can write stands in this file.

A form is one way to ask for one thing ("C.fact": a content question from a known fact). Its train and test questions are disjoint,
so that a benchmark never repeats a question that a model has been taught, and test questions use the words of train questions, so
that it does not test rare vocabulary either (both are tested).

Slots of questions: {anchor} "the train" (in the forms ".word" and ".time" a word to quote), {time} "first" or "last", {stem} "when
does the train leave", {Stem} the same with a capital, {context} words to quote. Of answers also: {answer}, {Answer}, {transcript},
{emotion} "sad", {person} "woman", {adjective} "female", {count} "is one person".
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal

from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS
from undertone.records import content_hash

FrameSet = Literal["train", "test"]


@dataclass(frozen=True, kw_only=True)
class Form:
    """The wordings of one form.

    Attributes:
        train: Questions for training, in many wordings.
        test: Questions for the benchmark.
        answers: Answers for training; the first is the plain one, which short template data and the benchmark's references use.
        template: Questions of conventional template-like data (strategy "pqa"); also train questions.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    answers: tuple[str, ...]
    template: tuple[str, ...] = ()


_SHORT = ("{Answer}.",)
"""A content answer is the fact and nothing else, so that word overlap with the reference (token F1) counts no framing."""

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "ASR": Form(
            train=(
                "Write down what is said.",
                "What does the speaker say?",
                "Please write down the words that you hear.",
                "What is said in this clip?",
                "Write out every word of the clip.",
                "Listen and write down each word.",
                "Put the speech into words.",
                "Tell me word for word what is said.",
                "Which words do you hear?",
                "Repeat what the speaker says.",
                "Give me the words of this clip.",
                "What do you hear? Write it down.",
            ),
            test=(
                "Write down every word that you hear.",
                "What words does the speaker say?",
                "Repeat word for word what is said.",
                "Listen to the clip and write down the words.",
                "Tell me what the speaker says.",
                "Put into words what you hear.",
            ),
            answers=("{transcript}",),
        ),
        "C.fact": Form(
            train=(
                "Going by what is said, {stem}?",
                "Listen to the words: {stem}?",
                "Please answer from the clip: {stem}?",
                "{Stem}? Answer from what you hear.",
                "According to the speaker, {stem}?",
                "Here is a question about the words: {stem}?",
                "{Stem}? It is said in the clip.",
                "Listen and answer: {stem}?",
                "What do you hear about this: {stem}?",
                "{Stem}, according to the clip?",
                "Tell me what is said: {stem}?",
                "Someone in the clip says it: {stem}?",
                "Listen for this: {stem}?",
            ),
            test=(
                "From what you hear, {stem}?",
                "According to the clip, {stem}?",
                "Answer from the words of the speaker: {stem}?",
                "{Stem}? Listen and tell me.",
                "{Stem}, according to what is said?",
                "Here is a question about the clip: {stem}?",
            ),
            answers=_SHORT,
        ),
        "C.after": Form(
            train=(
                'Which word comes right after "{context}"?',
                'What is the next word after "{context}"?',
                'The speaker says "{context}". Which word comes next?',
                'What does the speaker say right after "{context}"?',
                'Listen for "{context}". What is the next word?',
                'After the words "{context}", which word do you hear?',
                'Tell me the word that comes after "{context}".',
                'You hear "{context}". What is said next?',
            ),
            test=(
                'Which word do you hear right after "{context}"?',
                'What comes next after the words "{context}"?',
                'Tell me the word that the speaker says after "{context}".',
                'Someone says "{context}". What is the next word?',
            ),
            answers=_SHORT,
        ),
        "C.before": Form(
            train=(
                'Which word comes right before "{context}"?',
                'What is the last word before "{context}"?',
                'What does the speaker say right before "{context}"?',
                'Listen for "{context}". Which word comes before it?',
                'Before the words "{context}", which word do you hear?',
                'Tell me the word that comes before "{context}".',
            ),
            test=(
                'Which word do you hear right before "{context}"?',
                'What word comes before the words "{context}"?',
                'Tell me the word that the speaker says before "{context}".',
            ),
            answers=_SHORT,
        ),
        "C.last": Form(
            train=(
                "What is the last word of the clip?",
                "Which word comes last?",
                "Listen to the end. What is the last word?",
                "With which word does the clip end?",
                "Tell me the last word that is said.",
                "What is the very last word that you hear?",
            ),
            test=(
                "Which word is the last one that you hear?",
                "What is the word at the end of the clip?",
                "Tell me which word the speaker says last.",
            ),
            answers=_SHORT,
        ),
        "DE": Form(
            template=(
                "What is the emotion of the speaker?",
                "What emotion does the speaker express?",
                "Which emotion do you hear in the voice?",
                "How does the speaker feel?",
                "What is the speaker's emotion?",
            ),
            train=(
                "How does the speaker sound in this clip?",
                "What mood is the speaker in?",
                "Describe the feeling in the speaker's voice.",
                "Listen to the tone of voice. What does it say about the speaker's mood?",
                "If you listen to the voice alone, how does the person feel?",
                "Which feeling does the tone of voice give away?",
                "What emotion runs through the whole clip?",
                "How would you describe the speaker's mood overall?",
                "Put the words aside. What emotion does the voice show?",
                "What does the way of speaking tell you about how the person feels?",
                "Is there an emotion in the voice, and which one?",
                "In a few words, how does this person sound?",
                "Tell me how the speaker feels, going by the voice.",
                "What is the tone of the person who speaks?",
            ),
            test=(
                "What feeling do you hear in this voice?",
                "How does the person sound overall?",
                "Which emotion does the speaker show in this clip?",
                "Going by the tone of voice, how does the speaker feel?",
                "Describe the mood of the speaker in a few words.",
                "What emotion is in the voice of this person?",
                "Tell me which mood the speaker is in.",
            ),
            answers=(
                "The speaker sounds {emotion}.",
                "They sound {emotion}.",
                "The speaker feels {emotion}.",
                "The person sounds {emotion} here.",
                "The tone of voice is {emotion}.",
            ),
        ),
        "DG": Form(
            template=(
                "Is the speaker male or female?",
                "What is the gender of the speaker?",
                "Is the speaker a man or a woman?",
                "What is the speaker's gender?",
            ),
            train=(
                "Do you hear a man or a woman?",
                "Does this voice belong to a man or a woman?",
                "Who is speaking in this clip, a woman or a man?",
                "Is this a female or a male voice?",
                "Tell me whether a woman or a man is speaking.",
                "Listen to the voice. Is it that of a man or of a woman?",
                "Which gender does the voice have?",
                "Going by the voice alone, is the person a man or a woman?",
                "Is the person in this clip male or female?",
                "Would you say that the speaker is a woman or a man?",
                "Describe the speaker: is it a man or a woman?",
                "What does the voice tell you about the gender of the person?",
                "Is it a woman who speaks, or a man?",
            ),
            test=(
                "Is this voice male or female?",
                "Is the person who speaks a woman or a man?",
                "Which gender is the speaker in this clip?",
                "Tell me the gender of the person that you hear.",
                "Does the voice belong to a woman or to a man?",
                "Going by the voice, what is the gender of the speaker?",
                "Who do you hear, a man or a woman?",
            ),
            answers=(
                "The speaker is a {person}.",
                "It is a {person} who speaks.",
                "I hear a {person}.",
                "The voice is {adjective}.",
                "The person in this clip is a {person}.",
            ),
        ),
        "DS": Form(
            train=(
                "How many people speak in this clip?",
                "How many speakers do you hear?",
                "How many voices are there?",
                "Tell me how many people are speaking.",
                "How many different people do you hear?",
                "Listen to the voices. How many are there?",
                "What is the number of speakers in this clip?",
                "How many people take part in the talk?",
                "Count the speakers. How many are there?",
                "By the voices, how many people are there?",
                "Say how many speakers are in the clip.",
                "How many persons can you tell apart by their voices?",
            ),
            test=(
                "How many voices do you hear in this clip?",
                "How many speakers are there?",
                "Tell me the number of people who speak.",
                "Listen to the clip. How many people do you hear?",
                "What is the number of voices in this clip?",
                "By the voices, how many speakers take part?",
            ),
            answers=("There {count} speaking.", "I can tell that there {count} here.", "In this clip there {count}."),
        ),
        "CE": Form(
            train=(
                "How does the speaker feel while talking about {anchor}?",
                "How does the person sound when they mention {anchor}?",
                "Which emotion do you hear when the speaker talks about {anchor}?",
                "What feeling is in the voice at the mention of {anchor}?",
                "When the talk turns to {anchor}, what mood is the speaker in?",
                "What does the tone of voice tell you when they speak of {anchor}?",
                "With what emotion does the speaker bring up {anchor}?",
                "The speaker mentions {anchor}. How do they feel at that moment?",
                "Listen to the part about {anchor}. What emotion is in the voice?",
                "At the words about {anchor}, how does the voice sound?",
                "What is the speaker's mood in the part about {anchor}?",
                "How would you describe the voice when it speaks of {anchor}?",
                "Which feeling comes with the words about {anchor}?",
                "As they talk about {anchor}, what emotion does the person show?",
                "Someone speaks of {anchor}. What is their tone?",
                "Describe how the person feels when they bring up {anchor}.",
            ),
            test=(
                "What emotion does the speaker show when they mention {anchor}?",
                "How does the voice sound in the part about {anchor}?",
                "When the person speaks of {anchor}, how do they feel?",
                "What is the mood of the person who talks about {anchor}?",
                "In what tone does the speaker mention {anchor}?",
                "Which emotion is in the voice while the speaker talks about {anchor}?",
                "The talk turns to {anchor}. How does the speaker sound?",
                "Describe the feeling in the voice when they bring up {anchor}.",
            ),
            answers=(
                "They sound {emotion} when they talk about {anchor}.",
                "The speaker sounds {emotion} at that moment.",
                "They feel {emotion} when they mention {anchor}.",
                "In that part the speaker sounds {emotion}.",
                "The voice is {emotion} in the part about {anchor}.",
            ),
        ),
        "CE.word": Form(
            train=(
                'How does the speaker sound when they say "{anchor}"?',
                'Which emotion do you hear in the voice that says "{anchor}"?',
                'What feeling is in the voice at the word "{anchor}"?',
                'Listen for the word "{anchor}". How does the speaker feel there?',
                'What is the mood of the person who says "{anchor}"?',
                'With what emotion is "{anchor}" said?',
                'The speaker says "{anchor}". What does the tone of voice tell you?',
                'When you hear "{anchor}", what mood is the speaker in?',
                'How would you describe the voice in the part with "{anchor}"?',
                'Describe how the person feels as they say "{anchor}".',
                'Someone says "{anchor}". What is their tone?',
                'Which feeling comes with the word "{anchor}"?',
            ),
            test=(
                'What emotion does the speaker show when they say "{anchor}"?',
                'How does the voice sound at the word "{anchor}"?',
                'When the person says "{anchor}", how do they feel?',
                'In what tone does the speaker say "{anchor}"?',
                'Describe the feeling in the voice that says "{anchor}".',
                'Listen for "{anchor}". What mood is the speaker in?',
            ),
            answers=(
                'They sound {emotion} when they say "{anchor}".',
                "The speaker sounds {emotion} at that moment.",
                'They feel {emotion} as they say "{anchor}".',
                "In that part the speaker sounds {emotion}.",
                'The voice is {emotion} at the word "{anchor}".',
            ),
        ),
        "CG.word": Form(
            train=(
                'Is it a man or a woman who says "{anchor}"?',
                'Who says "{anchor}", a man or a woman?',
                'Is the voice that says "{anchor}" male or female?',
                'What is the gender of the person who says "{anchor}"?',
                'When you hear "{anchor}", is it from a man or a woman?',
                'Listen for the word "{anchor}". Is the speaker a woman or a man?',
                'Someone says "{anchor}". Is that person male or female?',
                'Does a woman or a man say "{anchor}"?',
                'Tell me whether a man or a woman says "{anchor}".',
                'Which gender does the voice have at the word "{anchor}"?',
                'The word "{anchor}": does it come from a man or from a woman?',
                "Whose voice says \"{anchor}\", a woman's or a man's?",
            ),
            test=(
                'What is the gender of the speaker who says "{anchor}"?',
                'Is the person who says "{anchor}" female or male?',
                'Do you hear a woman or a man at the word "{anchor}"?',
                'Is it a woman or a man who says "{anchor}"?',
                'When someone says "{anchor}", is it a man or a woman?',
                'Which gender is the voice that says "{anchor}"?',
            ),
            answers=(
                'It is a {person} who says "{anchor}".',
                'A {person} says "{anchor}".',
                "The voice in that part is {adjective}.",
                'The person who says "{anchor}" is a {person}.',
            ),
        ),
        "CE.time": Form(
            train=(
                'How does the speaker sound the {time} time that they say "{anchor}"?',
                'What emotion is in the voice when "{anchor}" is said for the {time} time?',
                'You hear "{anchor}" more than once. How do they feel the {time} time?',
                'Listen for "{anchor}". What mood is the speaker in the {time} time that it comes?',
                'Which feeling do you hear the {time} time that someone says "{anchor}"?',
                'Describe the tone of voice when the word "{anchor}" comes for the {time} time.',
                'How does the person feel as they say "{anchor}" for the {time} time?',
                'With what emotion is "{anchor}" said the {time} time?',
            ),
            test=(
                'What emotion do you hear when someone says "{anchor}" for the {time} time?',
                'How does the voice sound the {time} time that you hear "{anchor}"?',
                'What mood is the speaker in when they say "{anchor}" for the {time} time?',
                'Describe the feeling in the voice the {time} time that "{anchor}" is said.',
            ),
            answers=(
                'They sound {emotion} the {time} time that they say "{anchor}".',
                "The speaker sounds {emotion} at that moment.",
                'They feel {emotion} as they say "{anchor}" for the {time} time.',
                "In that part the speaker sounds {emotion}.",
            ),
        ),
        "CG.time": Form(
            train=(
                'Is it a man or a woman who says "{anchor}" the {time} time?',
                'You hear "{anchor}" more than once. Who says it the {time} time, a man or a woman?',
                'Is the voice male or female when "{anchor}" is said for the {time} time?',
                'What is the gender of the person who says "{anchor}" the {time} time?',
                'Listen for "{anchor}". Is the speaker a woman or a man the {time} time that it comes?',
                'Tell me whether a man or a woman says "{anchor}" for the {time} time.',
                'Does a woman or a man say "{anchor}" the {time} time?',
                'Which gender does the voice have the {time} time that you hear "{anchor}"?',
            ),
            test=(
                'Who says "{anchor}" for the {time} time, a woman or a man?',
                'Is the person who says "{anchor}" the {time} time female or male?',
                'What is the gender of the speaker when "{anchor}" is said for the {time} time?',
                'Do you hear a woman or a man the {time} time that someone says "{anchor}"?',
            ),
            answers=(
                'It is a {person} who says "{anchor}" the {time} time.',
                'A {person} says "{anchor}" for the {time} time.',
                "The voice at that moment is {adjective}.",
            ),
        ),
        "CG": Form(
            train=(
                "Is it a man or a woman who mentions {anchor}?",
                "Who talks about {anchor}, a man or a woman?",
                "Is the voice that speaks of {anchor} male or female?",
                "What is the gender of the person who brings up {anchor}?",
                "When the talk turns to {anchor}, do you hear a man or a woman?",
                "Listen to the part about {anchor}. Is the speaker a woman or a man?",
                "Someone mentions {anchor}. Is that person male or female?",
                "Does a woman or a man talk about {anchor}?",
                "Tell me whether a man or a woman speaks of {anchor}.",
                "Which gender does the voice have in the part about {anchor}?",
                "The words about {anchor}: are they from a man or from a woman?",
                "Whose voice mentions {anchor}, a woman's or a man's?",
            ),
            test=(
                "What is the gender of the speaker who talks about {anchor}?",
                "Is the person who mentions {anchor} female or male?",
                "Do you hear a woman or a man in the part about {anchor}?",
                "Is it a woman or a man who speaks of {anchor}?",
                "When someone brings up {anchor}, is it a man or a woman?",
                "Which gender is the voice that mentions {anchor}?",
            ),
            answers=(
                "It is a {person} who mentions {anchor}.",
                "A {person} talks about {anchor}.",
                "The voice in that part is {adjective}.",
                "The person who brings up {anchor} is a {person}.",
            ),
        ),
    }
)

EMOTION_ADJECTIVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "angry": ("angry", "annoyed"),
        "disgusted": ("disgusted",),
        "fearful": ("fearful", "frightened"),
        "happy": ("happy", "cheerful"),
        "neutral": ("neutral", "calm"),
        "sad": ("sad", "unhappy"),
        "surprised": ("surprised",),
    }
)
"""The adjectives that richer answers vary between; few, so that a small model can learn them. All stand in `EMOTION_WORDS`."""

GENDERS: Mapping[str, tuple[str, str]] = MappingProxyType({label: (words[0], words[1]) for label, words in GENDER_WORDS.items()})
"""Gender -> ({person}, {adjective})."""

COUNTS: Mapping[str, str] = MappingProxyType(
    {
        "1": "is one person",
        **{str(number): f"are {word} people" for number, word in enumerate(("two", "three", "four", "five", "six"), start=2)},
    }
)

HIGH_AROUSAL, LOW_AROUSAL = 0.7, 0.35
"""Arousal (0..1) from which an answer says "very", and below which it says "a little"."""

_QUIET = frozenset({"sad", "disgusted"})
"""Emotions of which low arousal is no sign of weakness; they are never "a little"."""


def canonical(emotion: str) -> str:
    """The plain adjective of an emotion class."""
    return EMOTION_WORDS[emotion][0]


def coloured(adjective: str, emotion: str, arousal: float | None) -> str:
    """The adjective with its strength as heard: "very angry", "a little happy"; the class stays what it is (2508.07273).

    Args:
        adjective: One of the class's adjectives.
        emotion: The class; a neutral voice is never very neutral.
        arousal: 0..1, or None where it is not known.
    """
    if arousal is None or emotion == "neutral":
        return adjective
    if arousal >= HIGH_AROUSAL:
        return f"very {adjective}"
    return f"a little {adjective}" if arousal < LOW_AROUSAL and emotion not in _QUIET else adjective


@functools.cache
def digest() -> str:
    """Changes with every wording: the grammar's `prompt_digest`."""
    table = {
        "forms": {name: asdict(form) for name, form in FORMS.items()},
        "adjectives": dict(EMOTION_ADJECTIVES),
        "genders": dict(GENDERS),
        "counts": dict(COUNTS),
        "arousal": [HIGH_AROUSAL, LOW_AROUSAL, sorted(_QUIET)],
    }
    return content_hash(json.dumps(table, sort_keys=True, ensure_ascii=False))
