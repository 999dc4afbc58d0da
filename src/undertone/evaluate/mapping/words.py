"""Words that answers are read by, beside those that the generator writes with (`undertone.lexicon`), and what each is a word of.

Kept apart from the lexicon because its words are also looked for in generated questions and answers: a word added here changes how answers
are read and nothing that is written. Three layers, each asked only where the one before claims nothing: words for the thing itself, for
what shows it (a smile, tears; a mother, a son), and pronouns.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from undertone.label.events import EVENTS, FROM_SOUNDS
from undertone.lexicon import EMOTION_WORDS, GENDER_WORDS

Words = Mapping[str, tuple[str, ...]]
"""Class -> its words and phrases."""


def _words(text: str) -> tuple[str, ...]:
    """Words and, with their spaces written as underscores, phrases."""
    return tuple(word.replace("_", " ") for word in text.split())


EMOTION_ALSO: Words = MappingProxyType(
    {
        "angry": _words(
            """angered angering wrath ire incensed infuriated fuming seething seethes exasperated exasperation irritable irritably
            aggravated aggression belligerent combative bitter bitterness resentment displeased displeasure outrage outraged
            pissed_off ticked_off losing_his_temper losing_her_temper loses_his_temper loses_her_temper lost_his_temper
            lost_her_temper hot_under_the_collar fit_of_temper at_the_end_of_his_patience at_the_end_of_her_patience
            at_the_end_of_their_patience out_of_patience lashes_out lashing_out"""
        ),
        "disgusted": _words(
            """disdain disdainful scorn scornful loathing repugnance repugnant nausea grossed_out abhorrence appalled
            turns_his_stomach turns_her_stomach"""
        ),
        "fearful": _words(
            """petrified panicking panic_stricken horrified dreading apprehensively on_edge jittery scared_stiff scared_to_death
            fretful spooked shaken_with_fear trembling_with_fear"""
        ),
        "happy": _words(
            """happier gleeful glee jubilant jubilation overjoyed ecstatic ecstasy euphoric euphoria blissful bliss exhilarated
            exhilaration cheerfulness enthused enthusiastically exuberant joyous joyfulness joviality jovial lighthearted
            satisfied satisfaction contentment buoyant beaming elation over_the_moon on_cloud_nine tickled_pink
            on_top_of_the_world walking_on_air"""
        ),
        "neutral": _words(
            """unemotionally dispassionate dispassionately detached deadpan expressionless unexpressive inexpressive monotone
            monotonous even_tempered emotionally_flat flat_affect stoic serene serenity tranquil placid businesslike
            matter_of_factly composure even_keeled unperturbed"""
        ),
        "sad": _words(
            """saddened saddening mourning mournfulness sombre somber despair despairing despondent dispirited disheartened
            crestfallen heartbreak heartache broken_hearted woeful wistful glum wretched anguish anguished sorrowing sorrowfully
            lugubrious tearfulness tear_choked choked_up hopeless hopelessness grieve grieves grieved low_in_spirits
            down_in_the_dumps forlorn disappointedly let_down bereaved in_low_spirits downhearted"""
        ),
        "surprised": _words(
            """astounded dumbfounded flabbergasted thunderstruck awestruck gobsmacked incredulous incredulity taken_by_surprise
            in_disbelief"""
        ),
    }
)

EMOTION_SHOWN: Words = MappingProxyType(
    {
        "happy": _words("laughing laughs laughter laugh giggling giggles chuckling chuckles smiling smile smiles grinning grin"),
        "sad": _words(
            """crying cries sobbing sobs weeping weeps tears in_tears on_the_verge_of_tears close_to_tears near_tears
            fighting_back_tears voice_breaks voice_cracks"""
        ),
        "fearful": _words("shaking_with_fear screams_in_terror trembles_with_fear"),
        "angry": _words("shouts_in_anger yelling_at shouting_at"),
        "surprised": _words("gasps_in_surprise jaw_drops"),
    }
)
"""What shows an emotion without naming it: counts only where no emotion is named."""

EMOTION_FINER: Words = MappingProxyType(
    {
        "frustrated": _words("frustrated frustration exasperated exasperation fed_up"),
        "annoyed": _words("annoyed annoyance irritated irritation irritable irritably aggravated"),
        "excited": _words(
            """excited excitedly excitement thrilled enthusiastic enthusiasm enthused enthusiastically exhilarated exhilaration"""
        ),
        "amused": _words("amused amusement"),
        "content": _words("contented contentment satisfied satisfaction"),
        "calm": _words("calm calmly calmness serene serenity relaxed tranquil placid composed composure"),
        "anxious": _words(
            """anxious anxiously anxiety nervous nervously nervousness worried worry uneasy unease apprehensive apprehension
            jittery on_edge"""
        ),
        "contemptuous": _words("contempt contemptuous disdain disdainful scorn scornful"),
        "disappointed": _words("disappointed disappointment disappointedly let_down"),
    }
)
"""Shades that a question may offer as classes of their own (IEMOCAP: frustration beside anger, excited beside happiness)."""

GENDER_ALSO: Words = MappingProxyType(
    {
        "female": _words("womens girlish female_sounding lass ladylike gal"),
        "male": _words("mens boyish male_sounding lad chap bloke dude"),
    }
)

KIN: Words = MappingProxyType(
    {
        "female": _words(
            """mother mom mum mummy mommy mama daughter sister aunt wife grandmother grandma granny girlfriend niece bride actress
            waitress saleswoman businesswoman policewoman spokeswoman hostess"""
        ),
        "male": _words(
            """father dad daddy papa son brother uncle husband grandfather grandpa granddad boyfriend nephew groom waiter salesman
            businessman policeman spokesman"""
        ),
    }
)
"""Words that say somebody's gender beside something else: count only where no plain word does."""

PRONOUNS: Words = MappingProxyType({"female": _words("she her hers herself"), "male": _words("he him his himself")})


def _forms(*verbs: str) -> tuple[str, ...]:
    """A verb as it is found: cough, coughs, coughed, coughing; sneeze, sneezes, sneezed, sneezing."""
    made: list[str] = []
    for verb in verbs:
        first, *rest = verb.split()
        stem = first.removesuffix("e")
        third = first[:-1] + "ies" if first.endswith("y") and first[-2] not in "aeiou" else first + "s"
        past = first[:-1] + "ied" if third.endswith("ies") else stem + "ed"
        made += [" ".join((form, *rest)) for form in (first, third, past, stem + "ing")]
    return tuple(made)


_OWN = ("his", "her", "their", "the", "a")

EVENT_ALSO: Words = MappingProxyType(
    {
        "laughter": _forms("laugh", "giggle", "chuckle", "snicker", "cackle", "chortle", "snigger", "titter"),
        "crying": (*_forms("cry", "sob", "whimper", "wail", "weep"), "sobbing", "sobbed", "wept", "in tears"),
        "scream": (*_forms("scream", "shriek", "screech"), "screeches"),
        "cough": _forms("cough"),
        "sneeze": _forms("sneeze"),
        "sigh": _forms("sigh"),
        "yawn": _forms("yawn"),
        "moan": _forms("moan", "groan"),
        "panting": (*_forms("pant"), "out of breath", "breathless", "gasping for air", "heavy breathing", "breathes heavily"),
        "throat_clearing": tuple(f"{form} {own} throat" for form in _forms("clear") for own in _OWN),
        "mouth_noise": (
            *(f"{form} {own} lips" for form in _forms("smack") for own in _OWN),
            *(f"{form} {own} tongue" for form in _forms("click") for own in _OWN),
            *(f"{form} {own} nose" for form in ("blows", "blowing", "blew") for own in _OWN),
            *_forms("sniff", "sniffle", "gargle", "chew"),
            *("lip smack", "tongue click", "chewing"),
        ),
        "applause": (*_forms("applaud"), "clap", "claps", "clapped", "clapping", "ovation"),
        "music": ("musical", "melody", "sings", "sang", "sing", "singer", "violin", "flute", "trumpet", "drums"),
        "noise": (
            "noises",
            "noisy",
            "background noise",
            "traffic",
            "hiss",
            "hissing",
            "buzz",
            "buzzing",
            "humming",
            "wind blowing",
        ),
    }
)

EVENT_WORDS: Words = MappingProxyType(
    {event: (event.replace("_", " "), *FROM_SOUNDS.get(event, ()), *EVENT_ALSO.get(event, ())) for event in EVENTS}
)
"""Event (`label.events`) -> its words."""

LAYERS: Mapping[str, tuple[Words, ...]] = MappingProxyType(
    {
        "emotion": ({name: (*words, *EMOTION_ALSO[name]) for name, words in EMOTION_WORDS.items()}, EMOTION_SHOWN),
        "gender": (
            {
                name: (*(word for word in words if word not in PRONOUNS[name]), *GENDER_ALSO[name])
                for name, words in GENDER_WORDS.items()
            },
            KIN,
            PRONOUNS,
        ),
        "event": (EVENT_WORDS,),
    }
)
"""Attribute -> its layers of words; the attributes that are read by words alone."""
