"""Answers as models give them, and the class that each one claims."""

import itertools

import pytest

from undertone.errors import ConfigError
from undertone.evaluate import mapping
from undertone.evaluate.mapping import to_label
from undertone.generate.frames import EMOTION_ADJECTIVES, FORMS, GENDERS, coloured

EMOTION = [
    # plain
    ("Sad.", "sad"),
    ("**Angry**", "angry"),
    ("Emotion: HAPPY", "happy"),
    ("The speaker sounds fearful.", "fearful"),
    ("She is disgusted by the food.", "disgusted"),
    ("It conveys surprise.", "surprised"),
    ("The tone is neutral", "neutral"),
    ("The emotion is \u201csad\u201d.", "sad"),
    ("I think that he is angry here.", "angry"),
    ("Probably happy.", "happy"),
    # endings and synonyms
    ("He says it angrily and with a raised voice.", "angry"),
    ("She speaks happily about the trip.", "happy"),
    ("He sounds sadder than usual.", "sad"),
    ("There is great sadness in the voice.", "sad"),
    ("He is furious about the delay.", "angry"),
    ("The speaker appears to be quite nervous.", "fearful"),
    ("She is delighted!", "happy"),
    ("The speaker is fed up.", "angry"),
    ("He was taken aback.", "surprised"),
    ("A matter-of-fact tone.", "neutral"),
    ("She sounds calm and composed.", "neutral"),
    ("Unhappy", "sad"),
    # absence of emotion
    ("There is no particular emotion in it.", "neutral"),
    ("The speaker doesn't sound emotional.", "neutral"),
    ("He does not show any strong emotion.", "neutral"),
    ("It is said with little emotion.", "neutral"),
    # negation and comparison
    ("not angry but sad", "sad"),
    ("The speaker is not happy. She is sad.", "sad"),
    ("She isn't angry, she's afraid.", "fearful"),
    ("He doesn\u2019t sound angry at all, just neutral.", "neutral"),
    ("Neither happy nor sad; the tone is neutral.", "neutral"),
    ("Not angry or sad, but surprised.", "surprised"),
    ("Angry rather than sad.", "angry"),
    ("More sad than angry.", "sad"),
    ("There is no sign of anger; the speaker is happy.", "happy"),
    ("Instead of anger, one hears fear.", "fearful"),
    ("Far from happy, he sounds sad.", "sad"),
    ("Without any anger, she sounds pleased.", "happy"),
    ("The speaker is no longer afraid and sounds happy.", "happy"),
    ("He is not well and sounds sad.", "sad"),
    ("The emotion is not anger, fear, or sadness but joy.", "happy"),
    ("Not anger, fear or sadness.", None),
    ("There's nothing sad about it, she's happy.", "happy"),
    ("He couldn't be happier.", "happy"),
    ("Not exactly happy, not exactly sad - calm.", "neutral"),
    ("angry (not sad)", "angry"),
    ("anger? no. sadness.", "sad"),
    ("I'm not sure whether she is happy or sad.", None),
    ("They sound a little happy when they talk about the sad news.", "happy"),
    ("Not happy.", None),
    ("Not angry and sad.", None),
    ("Not only angry but furious.", "angry"),
    ("No doubt angry.", "angry"),
    ("No, the speaker is sad.", "sad"),
    ("I'm not sure, but she sounds sad.", "sad"),
    # hedges
    ("Maybe sad.", "sad"),
    ("Perhaps a little afraid", "fearful"),
    ("Happy, with a hint of surprise.", "happy"),
    ("Mostly sad with some anger.", "sad"),
    ("Sad, possibly angry.", "sad"),
    ("It could be fear or anger.", None),
    # lists are no answers
    ("Angry, happy, sad.", None),
    ("Angry or sad", None),
    ("A mix of anger and sadness.", None),
    ("First neutral, then angry.", None),
    ("Options: angry, happy, sad. The answer is sad.", "sad"),
    # reasons, quotes, echoed questions
    ("She is happy because the angry neighbour has moved out.", "happy"),
    ("Although he says he is happy, he sounds sad.", "sad"),
    ("When talking about the accident, she sounds afraid.", "fearful"),
    ('He says "I am so happy for you" but he is angry.', "angry"),
    ("Does the speaker sound happy or sad? Sad.", "sad"),
    ("Is she angry? No, she is neutral.", "neutral"),
    # no class
    ("", None),
    ("The speaker talks about the weather.", None),
    ("Sadly, the recording is too short.", None),
    ("She sounds surprisingly happy.", "happy"),
    ("a madman shouting", None),
    ("upset", None),
]

GENDER = [
    ("A woman.", "female"),
    ("The speaker is a man", "male"),
    ("male", "male"),
    ("Female voice", "female"),
    ("It is a man's voice.", "male"),
    ("It\u2019s a lady speaking.", "female"),
    ("She sounds young.", "female"),
    ("He does.", "male"),
    ("He is talking to a woman.", "male"),
    ("Not a man but a woman.", "female"),
    ("This isn't a woman; it is a man.", "male"),
    ("Not a man; she speaks softly.", "female"),
    ("Not a man.", None),
    ("Is it a man or a woman? A woman.", "female"),
    ("A man and a woman.", None),
    ("He or she", None),
    ("Either a man or a woman", None),
    ("Mostly the woman, with a man at the end.", "female"),
    ("The women of the house", "female"),
    ("It is a woman who mentions the man.", "female"),
    ("A man talks about his lady friend.", "male"),
    ("A human being from Manchester, here in the theme park", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "label"), EMOTION)
def test_emotion(text: str, label: str | None) -> None:
    found = to_label(text, "emotion")
    assert (found.label, found.how) == (label, "keyword" if label else "unmapped"), found.matches


@pytest.mark.parametrize(("text", "label"), GENDER)
def test_gender(text: str, label: str | None) -> None:
    found = to_label(text, "gender")
    assert (found.label, found.how) == (label, "keyword" if label else "unmapped"), found.matches


AGE = [
    ("child", "child"),
    ("in his mid-sixties", "elderly"),
    ("late teens to early twenties", None),
    ("a young adult of about 24", "young adult"),
    ("an adult, around 45", "middle-aged"),
    ("fifties or sixties", None),
    ("20 minutes", None),
    ("The voice is 20 years old, I'd say", "young adult"),
    ("an old house", None),
    ("She is talking to a child.", None),
    ("under 30", None),
    ("The answer is 72.", "elderly"),
]

SPEAKERS = [
    ("Two.", "2"),
    ("a man, a woman and a boy", "3"),
    ("two women", "2"),
    ("a woman, perhaps a man", None),
    ("at least 2", None),
    ("2 or 3", None),
    ("2 minutes", None),
    ("one and the same person", "1"),
    ("They are two different people.", "2"),
    ("21 people", None),
    ("One of them is angry.", None),
]

GENDERS_OF_SEVERAL = [
    ("The second speaker is male, the first speaker is female.", "female, male"),
    ("a man and another man", "male"),
    ("nobody knows", None),
]

EVENT = [
    ("She clears her throat and goes on.", "throat_clearing"),
    ("There is no music, only rain.", "noise"),
    ("applause, laughter", None),
    ("He laughed.", "laughter"),
    ("The laughing stock of the town", "laughter"),
]

SAID_BY_THE_MODEL = [
    ("There is no audio here. I'd be happy to help once you upload it.", "emotion", None),
    ("I'm afraid the clip is too short.", "emotion", None),
    ("I'm afraid I can't, but she sounds glad.", "emotion", "happy"),
    ('The gender is not stated ("the old lady with the pie" is only mentioned).', "gender", None),
    ('{"gender": "male", "why": "not a female voice"}', "gender", "male"),
    ('```json\n{"age": "elderly"}\n```', "age", "elderly"),
    ("No emotions can be determined from this clip.", "emotion", None),
]


@pytest.mark.parametrize(("text", "label"), AGE)
def test_age(text: str, label: str | None) -> None:
    assert to_label(text, "age").label == label, to_label(text, "age")


@pytest.mark.parametrize(("text", "label"), SPEAKERS)
def test_speakers(text: str, label: str | None) -> None:
    assert to_label(text, "speakers").label == label, to_label(text, "speakers")


@pytest.mark.parametrize(("text", "label"), GENDERS_OF_SEVERAL)
def test_genders_of_several_speakers(text: str, label: str | None) -> None:
    assert to_label(text, "genders").label == label, to_label(text, "genders")


@pytest.mark.parametrize(("text", "label"), EVENT)
def test_event(text: str, label: str | None) -> None:
    assert to_label(text, "event").label == label, to_label(text, "event")


@pytest.mark.parametrize(("text", "attribute", "label"), SAID_BY_THE_MODEL)
def test_what_a_model_says_of_itself_claims_nothing(text: str, attribute: str, label: str | None) -> None:
    assert to_label(text, attribute).label == label, to_label(text, attribute)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The weather.", "nothing_found"),
        ("not sad", "rejected"),
        ("sad or happy", "several"),
        ("Le locuteur est dans la rage", "other_language"),
    ],
)
def test_no_class_has_a_reason(text: str, reason: str) -> None:
    assert to_label(text, "emotion").reason == reason


IEMOCAP = ("frustration", "anger", "excited", "neutral", "happiness", "surprise", "sad")


@pytest.mark.parametrize(
    ("text", "among", "label"),
    [
        ("frustrated", IEMOCAP, "frustration"),
        ("frustrated", ("anger", "joy"), "anger"),
        ("She is enraged.", IEMOCAP, "anger"),
        ("frustration or annoyance", IEMOCAP, "frustration"),
        ("annoyed", IEMOCAP, None),
        ("thrilled", IEMOCAP, "excited"),
        ("There is no emotion in it.", IEMOCAP, "neutral"),
        ("afraid", IEMOCAP, None),
        ("anxious, not fearful", ("fear", "anxious"), "anxious"),
        ("Bored.", ("bored", "interested"), "bored"),
        ("not bored but interested", ("bored", "interested"), "interested"),
    ],
)
def test_offered_classes(text: str, among: tuple[str, ...], label: str | None) -> None:
    assert to_label(text, "emotion", among=among).label == label, to_label(text, "emotion", among=among)


def test_any_attribute_can_be_read_among_offered_classes() -> None:
    assert to_label("It is a Scottish accent.", "accent", among=("Scottish", "Indian")).label == "Scottish"
    assert to_label("two", "speakers", among=("1", "3")).reason == "not_offered"
    assert to_label("about 45", "age", among=("30-39", "40-49")).label == "40-49"


def test_offered_classes_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'joy' and 'happy'.*same words"):
        to_label("sad", "emotion", among=("joy", "happy"))
    with pytest.raises(ConfigError, match=r"must say years.*'tall'"):
        to_label("forty", "age", among=("tall",))
    with pytest.raises(ConfigError, match="got none"):
        to_label("sad", "emotion", among=())


def test_classes_are_those_that_can_be_claimed() -> None:
    assert mapping.classes("event")[:2] == ("laughter", "crying")
    assert mapping.classes("gender") == ("female", "male")
    with pytest.raises(ConfigError, match="'accent'"):
        mapping.classes("accent")


def test_the_tables_are_large_enough() -> None:
    assert len({text for text, _ in EMOTION}) >= 60
    assert len({text for text, _ in GENDER}) >= 20


@pytest.mark.parametrize("anchor", ["the bus", "the sad story", "an angry man", "two happy women"])
def test_what_the_grammar_writes_is_read_as_its_label(anchor: str) -> None:
    read = 0
    for form in FORMS.values():
        for answer in form.answers:
            if "{emotion}" in answer:
                for label, adjectives in EMOTION_ADJECTIVES.items():
                    for adjective, arousal in itertools.product(adjectives, (None, 0.1, 0.9)):
                        text = answer.format(emotion=coloured(adjective, label, arousal), anchor=anchor, time="first")
                        assert to_label(text, "emotion").label == label, text
                        read += 1
            if ("{person}" in answer or "{adjective}" in answer) and not answer.startswith("The person who"):
                for label, (person, adjective) in GENDERS.items():
                    text = answer.format(person=person, adjective=adjective, anchor=anchor, time="last")
                    assert to_label(text, "gender").label == label, text
                    read += 1
    assert read > 100


def test_roles_are_kept() -> None:
    found = to_label("Not angry, mostly sad, perhaps afraid.", "emotion")
    assert [(one.label, one.text, one.role) for one in found.matches] == [
        ("angry", "angry", "rejected"),
        ("sad", "sad", "main"),
        ("fearful", "afraid", "hedged"),
    ]


def test_unknown_attribute_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'accent'.*emotion, gender"):
        to_label("Scottish", "accent")


@pytest.mark.parametrize("table", ["STOP_WORDS", "MEANT_WORDS"])
def test_the_digest_covers_the_words_that_answers_are_scored_by(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    before = mapping.keyword_digest()
    assert mapping.keyword_digest() == before
    monkeypatch.setattr(mapping, table, getattr(mapping, table) - {"before"})
    assert mapping.keyword_digest() != before


def test_the_digest_covers_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mapping.keyword_digest()
    monkeypatch.setattr(mapping, "RULES", mapping.RULES + "+")
    assert mapping.keyword_digest() != before
