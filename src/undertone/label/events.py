"""Sounds beside speech: our words for them, and the words of sound classifiers mapped into ours in one visible table.

Sources of the words: AudioSet (Gemmeke et al. 2017, 527 classes, their display names), VocalSound (Gong et al. 2022, 6 classes), Deeply's
Nonverbal Vocalization data set (16 classes), ESC-50 (Piczak 2015). What stands in no row says nothing about these events: speech, shouting
and whispering (manners of speech), gasps and breath (too common to mark), animals, crowds, single knocks.
"""

from __future__ import annotations

from typing import Literal, get_args

Event = Literal[
    "laughter",
    "crying",
    "scream",
    "cough",
    "sneeze",
    "sigh",
    "yawn",
    "moan",
    "panting",
    "throat_clearing",
    "mouth_noise",
    "applause",
    "music",
    "noise",
]
EVENTS: tuple[Event, ...] = get_args(Event)

FROM_SOUNDS: dict[Event, tuple[str, ...]] = {
    "laughter": (
        *("laughter", "laugh", "laughing", "baby laughter", "giggle", "giggling", "snicker", "belly laugh"),
        *("chuckle, chortle", "chuckle"),
    ),
    "crying": ("crying, sobbing", "crying", "cry", "sobbing", "baby cry, infant cry", "baby cry", "crying baby", "whimper"),
    "scream": ("screaming", "scream", "shriek"),
    "cough": ("cough", "coughing"),
    "sneeze": ("sneeze", "sneezing"),
    "sigh": ("sigh", "sighing"),
    "yawn": ("yawn", "yawning"),
    "moan": ("moan", "moaning", "wail, moan", "groan", "groaning"),
    "panting": ("pant", "panting"),
    "throat_clearing": ("throat clearing", "throatclearing"),
    # Of lips, teeth, tongue and nose, without voice.
    "mouth_noise": (
        *("mouth noise", "lip popping", "lip smacking", "teeth chattering", "teeth grinding", "tongue clicking", "nose blowing"),
        *("sniff", "sniffing", "chewing, mastication", "biting", "gargling"),
    ),
    "applause": ("applause", "clapping"),
    "music": (
        *("music", "musical instrument", "background music", "theme music", "soundtrack music", "jingle (music)", "song"),
        *("singing", "male singing", "female singing", "child singing", "synthetic singing", "choir"),
        *(
            "pop music",
            "rock music",
            "hip hop music",
            "electronic music",
            "classical music",
            "jazz",
            "guitar",
            "piano",
            "drum",
            "orchestra",
        ),
    ),
    # Of the surroundings or the recording, long enough to lie under speech.
    "noise": (
        *("noise", "environmental noise", "static", "white noise", "pink noise", "hum", "mains hum", "distortion", "wind"),
        *(
            "wind noise (microphone)",
            "rain",
            "rain on surface",
            "waves, surf",
            "sea waves",
            "traffic noise, roadway noise",
            "engine",
        ),
        *("mechanical fan", "air conditioning", "vacuum cleaner", "chainsaw", "helicopter", "crackling fire", "fire"),
    ),
}

_LOOKUP = {word: event for event, words in FROM_SOUNDS.items() for word in (event, event.replace("_", " "), *words)}


def to_event(word: str) -> Event | None:
    """Our name for a classifier's sound; None for speech and for sounds that are no event of ours.

    >>> to_event("Giggle"), to_event("throat-clearing"), to_event("Speech")
    ('laughter', 'throat_clearing', None)
    """
    return _LOOKUP.get(word.strip().lower().replace("_", " ").replace("-", " "))
