"""Wordings of questions in context about who speaks: is it one voice or several (kind CS: content and number of speakers, 2509.16589)."""

from __future__ import annotations

from undertone.generate.frames.form import Form

FORMS = {
    "CS.count": Form(
        train=(
            "How many people have spoken by the time someone {does}?",
            "How many different voices have you heard once someone {does}?",
            "Count the speakers up to the moment when someone {does}. How many are there?",
            "Someone {does}. How many people have spoken by then, that person included?",
            "Up to the person who {does}, how many speakers are there?",
            "Listen until someone {does}. How many voices is that?",
            "Including the person who {does}, how many people have talked so far?",
            "Tell me how many speakers you have heard when someone {does}.",
        ),
        test=(
            "How many speakers have you heard by the time someone {does}?",
            "Including whoever {does}, how many people have spoken so far?",
            "Listen up to the moment when someone {does}. How many people is that?",
            "Someone {does}. How many different voices have you heard by then?",
        ),
        answers=("By then, there {count} to be heard.", "Up to there I hear {people}.", "{People} can be heard up to then."),
        rich_answers=(
            "By then, there {count} to be heard.",
            "{People} can be heard up to then.",
            "By that moment I have heard {voices}.",
            "That makes {people} so far.",
        ),
    ),
    "CS.pair": Form(
        train=(
            "Is it the same person who {does} and who {also}?",
            "Someone {does} and someone {also}. How many people are they?",
            "Do you hear one voice or two when someone {does} and when someone {also}?",
            "Does the voice that {does} belong to the person who {also}?",
            "How many different people are they, the speaker who {does} and the speaker who {also}?",
            "Listen to who {does} and to who {also}. Do they have the same voice?",
            "Is the speaker who {does} also the speaker who {also}?",
            "Compare the voice that {does} with the voice that {also}. Are there one or two speakers?",
            "By the voices, do one or two people do this: someone {does}, and someone {also}?",
            "Tell me whether the person who {does} and the person who {also} are the same.",
            "Are the person who {does} and the person who {also} one speaker or two?",
            "First someone {does}, then someone {also}. Is that the same voice?",
            "Would you say that the person who {does} is also the person who {also}?",
        ),
        test=(
            "Is the person who {does} the same as the person who {also}?",
            "Do one or two people speak when someone {does} and when someone {also}?",
            "By the voices, is it the same speaker who {does} and who {also}?",
            "How many people do you hear: the person who {does} and the person who {also}?",
            "Does the same voice say both, when someone {does} and when someone {also}?",
            "Are they one speaker or two, the person who {does} and the person who {also}?",
        ),
        outcomes={
            "1": ("It is one and the same person.", "I hear one voice in both places.", "That is one speaker, both times."),
            "2": ("They are two different people.", "I hear two different voices there.", "That is two different speakers."),
        },
    ),
}
