"""What the people of the demonstration corpus say: everyday sentences whose words do not give the emotion away.

A small grammar. Each topic has templates, each template has one or two slots "{a|b|c}", and each slot is a fact that a
content question can ask for. Since every slot has several equally likely fillings, the answer cannot be guessed from the
topic; since the wording is neutral and the emotion is drawn independently of topic, sentence and speaker, how something is
said cannot be guessed from what is said.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass
from typing import get_args

import numpy as np

from undertone.errors import ConfigError
from undertone.records import Emotion

MIN_LINES, MAX_LINES = 4, 9
NEUTRAL_SHARE = 0.35
"""Share of neutral turns; speech in the wild is mostly neutral."""
SPOKEN_EMOTIONS: tuple[Emotion, ...] = tuple(one for one in get_args(Emotion) if one not in {"other", "unknown"})
"""The emotions that a turn can have, sorted."""


@dataclass(frozen=True)
class Fact:
    """One thing that a sentence says: "when does the train leave" and "at nine". The answer stands in the sentence."""

    question_stem: str
    answer: str


@dataclass(frozen=True)
class Line:
    """One sentence, the noun phrase it is about, and what it says."""

    text: str
    topic: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Turn:
    """One line said by one speaker (an index into the conversation's speakers) in one emotion."""

    speaker_index: int
    line: Line
    emotion: Emotion


# topic -> (template, question stem for each slot in order). A topic's noun stands in each of its sentences.
_GRAMMAR: dict[str, tuple[tuple[str, ...], ...]] = {
    "the train": (
        ("The train to the coast leaves {at nine|at noon|at dawn}.", "when does the train to the coast leave"),
        ("We take the train {to the north|to the city|to the border}.", "where does the train that they take go"),
        ("The train stops {near the bridge|near the mill|near the harbour} today.", "where does the train stop today"),
        ("Our seats are in the {first|third|last} part of the train.", "which part of the train are the seats in"),
        ("The train now runs every {ten|twenty|forty} minutes.", "every how many minutes does the train run"),
        ("The train past our street is painted {blue|green|red}.", "what colour is the train past the street"),
        (
            "{My uncle|My aunt|My cousin} drives the train {on Sundays|on Mondays|at night}.",
            "who drives the train",
            "when does someone of the family drive the train",
        ),
        ("The train arrives on platform {two|five|seven} this week.", "which platform does the train arrive on"),
    ),
    "the exam": (
        ("The exam starts {on Monday|on Thursday|on Saturday} at the school.", "on which day does the exam start"),
        ("The exam has {twelve|thirty|fifty} questions this year.", "how many questions does the exam have"),
        (
            "{My brother|My sister|My cousin} takes the exam {after lunch|in the afternoon|next week}.",
            "who takes the exam",
            "when is the exam taken",
        ),
        ("The exam is held {in the hall|in the tower|in the gym}.", "where is the exam held"),
        ("We write the exam {in pencil|in ink|on a computer}.", "how is the exam written"),
        ("The teacher reads the exam {at home|on the bus|in the office}.", "where does the teacher read the exam"),
        ("The exam is about {rivers|planets|plants} this time.", "what is the exam about"),
        ("The results of the exam come {by post|by phone|by email}.", "how do the results of the exam come"),
    ),
    "the garden": (
        ("{Beans|Carrots|Onions} grow along the wall of the garden.", "what grows along the wall of the garden"),
        ("We water the garden {before breakfast|after work|after dark}.", "when is the garden watered"),
        ("The garden has {two|four|six} apple trees now.", "how many apple trees does the garden have"),
        ("A path of {stone|brick|sand} leads through the garden.", "what is the path through the garden made of"),
        ("The gate of the garden is painted {white|brown|yellow}.", "what colour is the gate of the garden"),
        (
            "{My father|My mother|My grandfather} digs in the garden {every spring|every Sunday|after the rain}.",
            "who digs in the garden",
            "when does someone dig in the garden",
        ),
        ("The bench in the garden faces {the lake|the road|the church}.", "what does the bench in the garden face"),
        ("We keep the tools of the garden {in the shed|in the cellar|in the garage}.", "where are the tools of the garden kept"),
    ),
    "the new job": (
        ("The new job begins {in April|in June|in October}.", "when does the new job begin"),
        ("The new job is {at the bank|at the airport|at the museum}.", "where is the new job"),
        (
            "{My sister|My brother|My cousin} told us about the new job {by phone|in person|over coffee}.",
            "who told them about the new job",
            "how were they told about the new job",
        ),
        ("For the new job we move {to the capital|to the island|to the valley}.", "where do they move for the new job"),
        ("The new job takes {three|four|five} days a week.", "how many days a week does the new job take"),
        ("The new job comes with {a phone|a desk|a van}.", "what does the new job come with"),
        ("I go to the new job {by bus|by bicycle|on foot}.", "how does the speaker go to the new job"),
        ("The new job is mostly about {maps|numbers|machines}.", "what is the new job mostly about"),
    ),
    "the doctor": (
        ("The doctor moved the visit {to Monday|to Wednesday|to Friday}.", "to which day did the doctor move the visit"),
        ("The doctor works {above the bakery|beside the school|behind the station}.", "where does the doctor work"),
        (
            "{My aunt|My grandfather|My wife} went to the doctor {yesterday|last week|this morning}.",
            "who went to the doctor",
            "when did someone go to the doctor",
        ),
        ("The doctor asked about {the sleep|the diet|the work} of each patient.", "what did the doctor ask each patient about"),
        ("The doctor wrote {two|three|six} lines on a card.", "how many lines did the doctor write on a card"),
        ("The doctor sees people {in the morning|in the evening|at midday}.", "when does the doctor see people"),
        ("The doctor has a {grey|black|green} coat.", "what colour is the coat of the doctor"),
        ("The doctor said to come back {in a week|in a month|in a year}.", "when should they come back to the doctor"),
    ),
    "the letter": (
        ("The letter came {from the bank|from the school|from the council}.", "where did the letter come from"),
        ("The letter lies {on the shelf|on the table|under the lamp}.", "where does the letter lie"),
        (
            "{My cousin|My uncle|My sister} read the letter {to everyone|to the lawyer|to the children}.",
            "who read the letter aloud",
            "to whom was the letter read",
        ),
        ("The letter is {one page|two pages|ten pages} long.", "how long is the letter"),
        ("The letter is written in {French|Spanish|German}.", "in which language is the letter written"),
        ("The letter has a {square|round|narrow} stamp on it.", "what shape is the stamp on the letter"),
        ("I answer the letter {tonight|tomorrow|next week}.", "when does the speaker answer the letter"),
        ("The letter is about {the roof|the fence|the lease}.", "what is the letter about"),
    ),
    "the neighbours": (
        ("The neighbours come back {from Norway|from Spain|from Canada} today.", "where do the neighbours come back from"),
        ("The neighbours have {two|three|five} children at the school.", "how many children of the neighbours are at the school"),
        ("The neighbours painted the door {blue|grey|orange} last week.", "what colour did the neighbours paint the door"),
        ("The neighbours leave the house {at six|at eight|at ten}.", "when do the neighbours leave the house"),
        (
            "The neighbours play {cards|chess|the piano} {on Sundays|after work|before noon}.",
            "what do the neighbours play",
            "when do the neighbours play",
        ),
        ("The neighbours park their van {on the corner|in the yard|by the gate}.", "where do the neighbours park their van"),
        ("The neighbours borrowed {the ladder|the drill|the rake} again.", "what did the neighbours borrow"),
        ("The neighbours bought {a boat|a tent|a clock} in town.", "what did the neighbours buy in town"),
    ),
    "dinner": (
        ("Dinner is {at seven|at eight|at nine} on weekdays.", "when is dinner on weekdays"),
        ("There is {rice|soup|fish} for dinner this evening.", "what is there for dinner this evening"),
        (
            "{My husband|My brother|My grandmother} cooks dinner {on Fridays|on holidays|in summer}.",
            "who cooks dinner",
            "when does someone of the family cook dinner",
        ),
        ("We are {four|six|nine} people for dinner.", "how many people are there for dinner"),
        ("We eat dinner {on the porch|in the kitchen|in the hall}.", "where is dinner eaten"),
        ("After dinner we walk {to the river|to the square|to the hill}.", "where do they walk after dinner"),
        ("Someone brings {bread|cheese|salad} for the dinner.", "what does someone bring for the dinner"),
        ("Dinner takes about {twenty|forty|ninety} minutes in our house.", "how many minutes does dinner take"),
    ),
    "the match": (
        ("The match was moved {to Tuesday|to Friday|to Sunday}.", "to which day was the match moved"),
        ("The match ended {one to one|two to one|three to two}.", "how did the match end"),
        (
            "{The visitors|The students|The farmers} scored {early|late|twice} in the match.",
            "who scored in the match",
            "when or how often did one side score in the match",
        ),
        ("We watch the match {at the club|at the hotel|at the office}.", "where do they watch the match"),
        ("Players wear {yellow|white|purple} shirts in the match.", "what colour are the shirts in the match"),
        ("About {eighty|two hundred|six hundred} people saw the match.", "about how many people saw the match"),
        ("The match began with {a song|a speech|a short walk}.", "what did the match begin with"),
        ("The match is played {near the forest|near the airport|near the market}.", "where is the match played"),
    ),
    "the trip": (
        ("The trip goes {to the mountains|to the desert|to the islands}.", "where does the trip go"),
        ("The trip lasts {three|five|eight} days in all.", "how many days does the trip last"),
        ("We pack {maps|blankets|boots} for the trip.", "what do they pack for the trip"),
        (
            "{My mother|My uncle|My boss} planned the trip {on paper|by phone|in one hour}.",
            "who planned the trip",
            "how was the trip planned",
        ),
        ("The trip starts {at the hotel|at the harbour|at the tower}.", "where does the trip start"),
        ("On the trip we sleep {in a tent|in a cabin|in a van}.", "where do they sleep on the trip"),
        ("We pay for the trip {in cash|by card|in parts}.", "how is the trip paid for"),
        ("The trip is planned {for March|for July|for November}.", "for which month is the trip planned"),
    ),
    "the car": (
        ("We park the car {behind the mill|behind the bank|behind the church}.", "where is the car parked"),
        ("The car needs {new tyres|new lights|more oil} this month.", "what does the car need this month"),
        (
            "{My sister|My cousin|My father} borrows the car {on Fridays|at weekends|in winter}.",
            "who borrows the car",
            "when is the car borrowed",
        ),
        ("The car was made {in Italy|in Japan|in Sweden}.", "where was the car made"),
        ("There are {three|four|seven} seats in the car.", "how many seats are there in the car"),
        ("The keys of the car hang {in the hall|by the stairs|in the kitchen}.", "where do the keys of the car hang"),
        ("We wash the car {every week|every month|twice a year}.", "how often is the car washed"),
        ("We found {a glove|a pen|a ticket} in the car.", "what did they find in the car"),
    ),
    "the library": (
        ("The library closes {at four|at six|at eight} on weekdays.", "when does the library close on weekdays"),
        ("The library lends {films|games|tools} as well now.", "what does the library lend as well now"),
        (
            "{My daughter|My son|My aunt} works in the library {every day|in summer|on Saturdays}.",
            "who works in the library",
            "when does someone of the family work in the library",
        ),
        ("The library moves {to the old mill|to the town hall|to the park}.", "where does the library move"),
        ("We return {two|five|eleven} books to the library.", "how many books are returned to the library"),
        ("The library has a {wooden|copper|glass} roof.", "what is the roof of the library made of"),
        ("A course on {cooking|painting|history} is held in the library.", "what is the course in the library about"),
        (
            "I meet the group at the library {on Tuesdays|on Thursdays|on Saturdays}.",
            "on which days is the group met at the library",
        ),
    ),
    "the meeting": (
        ("The meeting is on the {second|fourth|ninth} floor.", "on which floor is the meeting"),
        ("The meeting starts {at ten|at one|at three} tomorrow.", "when does the meeting start tomorrow"),
        (
            "{The manager|The engineer|The driver} speaks {first|second|last} in the meeting.",
            "who speaks in the meeting",
            "at which place in the order does someone speak in the meeting",
        ),
        ("The meeting is about {the budget|the website|the building}.", "what is the meeting about"),
        ("We drink {tea|coffee|water} at the meeting.", "what do they drink at the meeting"),
        ("There are {eight|fifteen|sixty} names on the list for the meeting.", "how many names are on the list for the meeting"),
        ("The meeting takes place {once a week|once a month|once a year}.", "how often does the meeting take place"),
        ("Someone from {London|Dublin|Boston} joins the meeting.", "where is the person from who joins the meeting"),
    ),
    "the dog": (
        ("The dog sleeps {under the table|by the door|on the carpet}.", "where does the dog sleep"),
        ("The dog is {two|four|nine} years old in May.", "how old is the dog in May"),
        (
            "{My son|My grandmother|My uncle} walks the dog {at noon|after work|before school}.",
            "who walks the dog",
            "when does someone walk the dog",
        ),
        ("The dog carries {a stick|a ball|a shoe} through the house.", "what does the dog carry through the house"),
        ("The dog came to us {in winter|in spring|in autumn}.", "when did the dog come to them"),
        ("The dog waits {at the corner|at the gate|at the window}.", "where does the dog wait"),
        ("The dog wears a {red|blue|brown} collar outside.", "what colour is the collar of the dog"),
        ("The dog is called {Rex|Toby|Milo} by the children.", "what do the children call the dog"),
    ),
}

TOPICS: tuple[str, ...] = tuple(_GRAMMAR)


@functools.cache
def lines(topic: str) -> tuple[Line, ...]:
    """All sentences about a topic; raises ConfigError for an unknown one."""
    if topic not in _GRAMMAR:
        raise ConfigError(f"no sentences about {topic!r}; expected one of {', '.join(TOPICS)}")
    made = []
    for template, *stems in _GRAMMAR[topic]:
        pieces = re.split(r"\{(.+?)\}", template)  # text, slot, text, slot, ..., text
        for values in itertools.product(*(slot.split("|") for slot in pieces[1::2])):
            text = "".join(itertools.chain.from_iterable(zip(pieces[::2], [*values, ""], strict=True)))
            facts = tuple(Fact(stem, _as_answer(value)) for stem, value in zip(stems, values, strict=True))
            made.append(Line(text, topic, facts))
    return tuple(made)


def _as_answer(value: str) -> str:
    """A slot's filling as an answer: no capital where only the start of the sentence asked for one."""
    first = value.split()[0]
    return value if first in _NAMES else value[0].lower() + value[1:]


_NAMES = frozenset({"Boston", "Dublin", "French", "German", "London", "Milo", "Rex", "Spanish", "Toby"})


@functools.cache
def _by_text() -> dict[str, Line]:
    return {line.text: line for topic in TOPICS for line in lines(topic)}


def line_of(text: str) -> Line | None:
    """The line with exactly this text, or None for a sentence that is not of this grammar."""
    return _by_text().get(text.strip())


def facts_of(text: str) -> tuple[Fact, ...]:
    """The facts of a transcript of one or several sentences of this grammar, in order; sentences of others have none."""
    sentences = re.split(r"(?<=\.)\s+", text.strip())
    found = (line_of(sentence) for sentence in sentences)
    return tuple(fact for line in found if line is not None for fact in line.facts)


def alternatives(fact: Fact) -> tuple[str, ...]:
    """The other answers that the same question could have had, in the order of the grammar."""
    every = (one for line in _by_text().values() for one in line.facts if one.question_stem == fact.question_stem)
    return tuple(dict.fromkeys(one.answer for one in every if one.answer != fact.answer))


def conversation(rng: np.random.Generator, *, lines: int, speakers: int) -> tuple[Turn, ...]:
    """Draws a conversation; no topic occurs twice and two speakers take turns.

    Topic, sentence, emotion and who begins are drawn independently of each other.

    Args:
        rng: All randomness is from here.
        lines: Number of turns, 4..9.
        speakers: 1 or 2.

    Raises:
        ConfigError: A number of turns or speakers outside these bounds.
    """
    if not MIN_LINES <= lines <= MAX_LINES:
        raise ConfigError(f"lines: got {lines}, expected {MIN_LINES}..{MAX_LINES}")
    if speakers not in (1, 2):
        raise ConfigError(f"speakers: got {speakers}, expected 1 or 2")
    topics = rng.permutation(len(TOPICS))[:lines]
    first = int(rng.integers(speakers))
    return tuple(
        Turn((first + index) % speakers, _draw_line(rng, TOPICS[topic]), _draw_emotion(rng)) for index, topic in enumerate(topics)
    )


def _draw_line(rng: np.random.Generator, topic: str) -> Line:
    choices = lines(topic)
    return choices[int(rng.integers(len(choices)))]


def _draw_emotion(rng: np.random.Generator) -> Emotion:
    if rng.random() < NEUTRAL_SHARE:
        return "neutral"
    others = [one for one in SPOKEN_EMOTIONS if one != "neutral"]
    return others[int(rng.integers(len(others)))]
