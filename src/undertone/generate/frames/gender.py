"""Wordings of questions about who speaks at one moment, a man or a woman."""

from __future__ import annotations

from undertone.generate.frames.form import Form

_SHORT = ("{Answer}.",)

FORMS = {
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
        rich=(
            "Find the mention of {anchor}. Is a man or a woman speaking there?",
            "Whoever brings up {anchor}: is it a woman or a man?",
            "At the mention of {anchor}, do you hear a male or a female voice?",
            "Judging by the voice, what gender is the speaker who mentions {anchor}?",
            "Is {anchor} mentioned by a man or by a woman?",
            "If you listen only to the part about {anchor}, is the voice a man's or a woman's?",
            "Who would you say brings up {anchor}, a lady or a gentleman?",
        ),
        rich_answers=(
            "A {person} brings up {anchor}.",
            "It is a {person}'s voice that mentions {anchor}.",
            "In that part a {person} is speaking.",
            "I hear a {adjective} voice there.",
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
        rich=(
            'Find the place where "{anchor}" is said. Is a man or a woman speaking there?',
            'Whoever says "{anchor}": is it a woman or a man?',
            'Is "{anchor}" said by a man or by a woman?',
            'Judging by the voice, what gender is the speaker who says "{anchor}"?',
            'At the word "{anchor}", do you hear a male or a female voice?',
        ),
        rich_answers=(
            'It is a {person}\'s voice that says "{anchor}".',
            "In that part a {person} is speaking.",
            "I hear a {adjective} voice there.",
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
        rich=(
            'Find the {time} "{anchor}". Is a man or a woman speaking there?',
            'Is the {time} "{anchor}" said by a man or by a woman?',
            'Whoever says "{anchor}" the {time} time: is it a woman or a man?',
            'At the {time} "{anchor}", do you hear a male or a female voice?',
        ),
        rich_answers=(
            'The {time} "{anchor}" is said by a {person}.',
            "At that point a {person} is speaking.",
            "I hear a {adjective} voice there.",
        ),
    ),
    "CG.same": Form(
        train=(
            "Is {place} by a voice of the same gender as {other}?",
            "Do you hear the same gender at {place} and at {other}?",
            "Compare the voices at {place} and at {other}. Are they of the same gender?",
            "Which gender do you hear at {place}, and which at {other}?",
            "Someone {does} and someone {also}. Is that a male or a female voice each time?",
            "Listen to {place} and then to {other}. What gender is the voice each time?",
        ),
        test=(
            "Are the voices at {place} and at {other} of the same gender?",
            "Which gender is the voice at {place}, and which is it at {other}?",
            "Someone {does} and someone {also}. What gender is each of them?",
        ),
        outcomes={
            "same": (
                "Both times it is a {first}.",
                "A {first} speaks at either point.",
                "It is a {first} who speaks in both places.",
            ),
            "differs": (
                "A {first}, and then a {second}.",
                "First a {first} speaks, then a {second}.",
                "It is a {first} who {does} and a {second} who {also}.",
            ),
        },
    ),
    "CG.what": Form(
        train=(
            "What does the {person} talk about?",
            "What is it that the {person} mentions?",
            "Listen to what the {person} says. What is it about?",
            "Find the part in which a {person} speaks. What is mentioned there?",
            "When the {person} speaks, what is it about?",
            "Which subject does the {person} bring up?",
        ),
        test=(
            "What does the {person} bring up?",
            "Listen for the part in which a {person} speaks. What is it about?",
            "What is mentioned when the {person} speaks?",
        ),
        answers=_SHORT,
        rich_answers=(
            "{Answer}.",
            "The {person} talks about {answer}.",
            "The {person} mentions {answer}.",
            "That is about {answer}.",
        ),
    ),
}
