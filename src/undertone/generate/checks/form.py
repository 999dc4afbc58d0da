"""Checks of a pair's form: that it is a question, that its label fits its kind, and the language that it is written in."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from undertone.generate.checks.limits import Limits
from undertone.lexicon import ATTRIBUTE_OF_KIND, LABEL_WORDS, STOP_WORDS, plain, tokens
from undertone.records import Clip, QAPair


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ASKS = _words("what which who whom whose when where why how is are was were do does did can could will would should has have")
_STATES = _words(
    """the a an this that these those there here i we you he she it they my our your his her its their one both each all some most many no yes
    nobody somebody someone everybody everyone speaker speakers man men woman women person people voice voices"""
)
"""First words of English statements. What begins with another word is an instruction: verbs are too many to list."""
_LEADS = re.compile(r"^(?:now|then|and|so|also|next|please|kindly|briefly|first)\b[, ]*")

_OPEN = frozenset({"OPEN", "REPLY"})
"""Kinds whose prompt is one of a study's own and whose answer is as long as it takes."""


def schema(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """Question or answer has no words, more lines than one or is no question; the label does not fit the kind, or is none of its classes."""
    for name, text in (("question", pair.question), ("answer", pair.answer)):
        if name == "question" and pair.kind == "REPLY" and not text:
            continue  # the speech alone is replied to
        if not re.search(r"\w", text):
            return f"the {name} has no words"
        # A transcription, a reply and an essay may have paragraphs.
        if len(text.splitlines()) > 1 and not (name == "answer" and pair.kind in _OPEN | {"ASR"}):
            return f"the {name} has more than one line"
    return _misfit(pair) or (_no_question(pair.question) if pair.kind not in _OPEN else None)


def _misfit(pair: QAPair) -> str | None:
    if (pair.label is None) != (pair.label_attribute is None):
        return "a label and what it is a value of go together"
    if pair.label is None:
        return None
    wanted = ATTRIBUTE_OF_KIND.get(pair.kind)
    if pair.kind in ("ASR", "C"):
        return f"a question of kind {pair.kind} has no label"
    if wanted is not None and pair.label_attribute != wanted:
        return f"the label of a question of kind {pair.kind} is {wanted}, not {pair.label_attribute}"
    known = LABEL_WORDS.get(pair.label_attribute or "")
    return f"{pair.label} is no {pair.label_attribute}" if known is not None and pair.label not in known else None


def _no_question(question: str) -> str | None:
    text = plain(question).casefold().strip()
    if "?" in text or _foreign(question, "en", "") is not None:  # what a statement begins with is known of English only
        return None
    sentences = [tokens(_LEADS.sub("", one)) for one in re.split(r"[.!:;]\s+", text)]
    clauses = [tokens(one) for one in text.split(",")]
    asks = any(one[0] not in _STATES for one in sentences if one) or any(one[0] in _ASKS for one in clauses if one)
    return None if asks and len(tokens(text)) > 1 else "it is neither a question nor an instruction"


# ---- language --------------------------------------------------------------------------------------------------------------------

_FUNCTION_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "en": STOP_WORDS,
        "de": _words(
            """der die das und ist nicht ein eine einer einem einen wie sich den dem des mit von auf für zu zum zur sie es ich er wir ihr
            wird wer was warum wann wo welche welcher welches sind war hat haben auch aber oder wenn als bei aus nach im in am an so man
            ihre ihrer seine seiner sein diese dieser dieses kann noch nur über um"""
        ),
        "fr": _words(
            """le la les et est un une des du de que qui dans pour pas sur avec il elle ils elles ce cette ces comment quelle quel quels
            quelles sont ne au aux je vous nous en son sa ses leur on où pourquoi quand se plus mais ou par c'est qu'est-ce l'on"""
        ),
        "es": _words(
            """el la los las un una unos que qué de del y en es por con para se su sus como cómo quién está están al lo no pero más o cuando
            cuándo donde dónde cuál porque le les este esta ese esa son fue ha muy ella él"""
        ),
        "it": _words(
            """il lo la i gli le un una uno che di del della dei è per con si come sono nel nella questo questa cosa chi non ma e o al alla
            da dal quando dove perché quale suo sua più ha lei lui"""
        ),
        "pt": _words(
            """o a os as um uma que de do da dos das em no na não é com para se como por qual quem você ele ela seu sua mais mas ou quando
            onde porque são está foi ao pelo pela isso este esta"""
        ),
        "nl": _words(
            """de het een en niet dat die wie hoe van op te zij hij ze met voor zich wat waar waarom wanneer welke is zijn was in aan er ook
            maar of als bij uit naar om door over haar hun deze dit kan nog"""
        ),
        "pl": _words(
            """i w we na z ze do nie się jest są to że jak co kto czy po od za o dla ale tak już był była było ten ta te tego tej jego jej ich
            przez przy gdy gdzie kiedy dlaczego który która które bardzo mnie mi ja ty on ona oni może tylko też pod nad ma"""
        ),
        "ms": _words(
            """yang dan di dengan itu ini adalah ialah untuk tidak tak siapa siapakah apa apakah bagaimana bagaimanakah dia mereka dari
            daripada pada kepada ke oleh akan telah sudah juga atau bila mana kenapa mengapa seorang ada"""
        ),
    }
)
"""Language -> words that its sentences are held together by; Indonesian is read as Malay, whose words it shares."""

_ENGLISH_TOO = _words(
    """die war man hat pour son on plus fit sage tout come comes wie sat den des en par no as under over dia ha mas comment van door hoe
    lo ma chi uno con"""
)
"""Words of other languages that are English words or names as well."""

_NOT_ENGLISH = re.compile(r"[äöüßàèìòùâêîôûçñãõąęłśżźćńđğışţșțőűřěůåøæœÿ]")
"""Letters of words that are rarely English: two of them in a sentence with few English function words are not."""

_SCRIPTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(_FUNCTION_WORDS, ("LATIN",)),
        **dict.fromkeys(("zh", "yue", "cmn"), ("CJK",)),
        **dict.fromkeys(("ru", "uk", "bg", "sr"), ("CYRILLIC",)),
        **dict.fromkeys(("ar", "fa", "ur"), ("ARABIC",)),
        **dict.fromkeys(("hi", "mr", "ne"), ("DEVANAGARI",)),
        "ja": ("CJK", "HIRAGANA", "KATAKANA"),
        "ko": ("HANGUL", "CJK"),
        "el": ("GREEK",),
        "he": ("HEBREW",),
        "th": ("THAI",),
        "ta": ("TAMIL",),
    }
)
_MIXED = frozenset({"LATIN", "CYRILLIC", "GREEK"})
_SAME = {"id": "ms"}

_LONG = 8
"""So many words of one language hold at least one function word."""


def other_language(pair: QAPair, clip: Clip, limits: Limits = Limits()) -> str | None:  # noqa: B008 - frozen
    """Question or answer is in another language or script than is wanted, as far as its function words and letters tell.

    A light method, which reads no model: what is quoted, and what is heard in the clip, counts for no other language, so a question may name
    a dish or repeat a phrase. A transcription is in the clip's language, and so may a reply be. A language that is in no table passes.
    """
    spoken = _bases(clip.language or "")
    wanted = ["en", *spoken] if limits.language is None else _bases(limits.language)
    if fault := _strange(pair.question, wanted, clip.transcript):
        return f"the question {fault}"
    if pair.kind == "ASR":
        return None
    fault = _strange(pair.answer, [*wanted, *spoken] if pair.kind in _OPEN else wanted, clip.transcript, whole=False)
    return f"the answer {fault}" if fault else None


def _bases(language: str) -> list[str]:
    """The languages that a code, or several ("en-GB, zh"), stands for."""
    found = (one.split("-")[0] for one in language.casefold().replace("_", "-").replace(",", " ").split())
    return [_SAME.get(one, one) for one in found if one not in ("unknown", "und", "and")]


def _strange(text: str, wanted: Sequence[str], heard: str, *, whole: bool = True) -> str | None:
    """How a text shows that it is in none of the wanted languages; None where it may be in one."""
    faults = [_foreign(text, one, heard, whole=whole) for one in wanted]
    return faults[0] if all(faults) else None


def _foreign(text: str, wanted: str, heard: str, *, whole: bool = True) -> str | None:
    """How a text shows another language than the wanted one; `whole`: it is a sentence, and a long one has function words."""
    shown = re.sub(r"[\"“”«»„].*?[\"“”«»]", " ", plain(text))
    letters = [one for one in shown if one.isalpha() and (one.isascii() or one not in heard)]
    if (scripts := _SCRIPTS.get(wanted)) and letters:
        strange = [name for one in letters if (name := _script(one)) not in scripts]
        if 2 * len(strange) > len(letters):
            return f"is written in {strange[0].capitalize()} letters"
    if any(len({_script(one) for one in word if one.isalpha()} & _MIXED) > 1 for word in shown.split()):
        return "mixes alphabets in one word"
    if wanted not in _FUNCTION_WORDS:
        return None
    own = _FUNCTION_WORDS[wanted] | (_ENGLISH_TOO if wanted == "en" else frozenset())
    words = tokens(shown)
    known = sum(one in own for one in words)
    said = frozenset(tokens(heard))
    odd = sum(wanted == "en" and bool(_NOT_ENGLISH.search(one)) and one not in own and one not in said for one in words)
    for language, theirs in _FUNCTION_WORDS.items():
        strangers = odd + sum(
            one in theirs and one not in own and one not in said and not (odd and _NOT_ENGLISH.search(one)) for one in words
        )
        if language != wanted and strangers >= 2 and strangers > known:
            return f"reads like the language {language!r}"
    return f"of {len(words)} words has none that holds a sentence together" if whole and len(words) >= _LONG and not known else None


@functools.cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNKNOWN").split()[0]


def words_of(text: str) -> int:
    """How long a text is in words; where words are not set apart (Chinese, Japanese, Thai), two letters count as one."""
    return len(tokens(text)) + sum(1 for _ in _unspaced(text)) // 2


def _unspaced(text: str) -> Iterator[str]:
    return (one for one in text if one.isalpha() and not one.isascii() and _script(one) in ("CJK", "HIRAGANA", "KATAKANA", "THAI"))
