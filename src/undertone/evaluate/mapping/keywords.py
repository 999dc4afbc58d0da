"""Finding the words of an answer that name a class, and the role that each plays.

Words are matched whole (a "woman" is no "man"), emotion words also in their usual endings ("angrily", "sadder"). The cues of a role stand in
the keyword's own clause, mostly before it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["main", "claimed", "hedged", "context", "other", "rejected"]
"""What an answer does with a class; see the package."""

CLAIMING: tuple[Role, ...] = ("main", "claimed", "hedged", "context")
"""Roles that can claim a class, the strongest first."""

Phrase = tuple[str, ...]


def word_set(text: str) -> frozenset[str]:
    """The words of a text that stand between spaces."""
    return frozenset(text.split())


_BREAKS = word_set(". , ; : ! ? ( ) { } [ ] but however yet instead just")
_NEGATIONS = word_set(
    """not no never nothing neither nor without non hardly barely scarcely lack lacks lacking unlike
    isnt wasnt doesnt dont didnt arent"""
)
_NEGATION_PAIRS = frozenset(
    {("far", "from"), ("instead", "of"), ("opposed", "to"), ("free", "of"), ("fails", "to"), ("devoid", "of"), ("absence", "of")}
)
_NOT_NEGATING = word_set("sure certain clear only merely simply doubt question help")
_HEDGES = word_set(
    """maybe perhaps possibly might may could hint hints touch touches trace traces tinge tinged undertone undertones overtone overtones
    nuance nuances shade shades bordering verging slightly somewhat bit little some partly occasionally if"""
)
_MAIN = word_set("mostly mainly primarily predominantly chiefly largely overall dominant most answer")
_SINGLED_OUT = word_set("main dominant primary prevailing predominant strongest")
"""After "is the": "fear is the dominant emotion"."""
_SUBORDINATE = word_set(
    "because since although though despite while whereas when after before until whenever about how who says mention mentions tells"
)
_SUPPOSED = word_set("initially first expect expected expecting thought assumed assume guessed")
"""Before what a later "but" takes back: "at first I thought it was fear, but ..."."""
_CONTRAST = word_set("but yet however although actually")
_REACH = 4
"""How many words before a keyword a cue may stand."""
_LABEL_WORDS = 2
"""A label in quotes has at most so many words; more are somebody's words."""
_OFFERED = 3
"""So many classes in one pair of brackets are the options of the question, said again."""

_PRONOUNS = word_set("he she they him her them i we you")
_POSSESSIVES = word_set("his her their my our your its")
_THIRD = word_set("his her their")
_DETERMINERS = word_set("a an the another some this that")
_TOWARDS = word_set("to with about for from of")
_DEALINGS = word_set(
    """talk talks talking talked speak speaks speaking spoke chat chats chatting ask asks asking asked tell tells telling told call calls
    calling called address addresses addressing addressed interview interviews interviewing interviewed mention mentions mentioning
    mentioned describe describes describing described complain complains complaining complained argue argues arguing thank thanks
    thanking greet greets greeting scold scolds scolding blame blames blaming quote quotes quoting imitate imitates imitating refer refers
    referring"""
)
"""Verbs after which another person is named: "a man is calling his wife"."""

_POLITE = re.compile(
    r"\b(?:happy|glad|pleased|delighted) to (?:help|assist|try|provide|answer|listen|analy[sz]e|take|do|hear)\b|\bi(?:'m| am) afraid\b"
)
"""What a model says of itself: "I'd be happy to help", "I'm afraid I cannot hear it"."""

_FOREIGN = word_set(
    """der das und ist sind eine ein klingt wie sehr man el los las una es est\u00e1 esta muy un hay le les est une des dans tr\u00e8s dit
    il elle sono molto voce che"""
)
_ENGLISH = word_set(
    "the a an is are and of or in it he she they this that there sounds speaker voice person emotion gender not no i"
)


@dataclass(frozen=True)
class Match:
    """One finding in an answer: the class it stands for, the text as matched, its first character, and its role."""

    label: str
    text: str
    start: int
    role: Role


@dataclass(frozen=True)
class Token:
    """A word or a mark of the cleaned answer."""

    text: str
    start: int
    shadow: bool
    """Inside double quotes or in a sentence that ends in a question mark."""
    quoted: bool = False
    """Inside double quotes with more words than a label has: somebody's words."""


def decide(matches: Sequence[Match]) -> str | None:
    """The one class in the strongest role present; None where there is none, or more than one."""
    for role in CLAIMING:
        labels = {match.label for match in matches if match.role == role}
        if labels:
            return labels.pop() if len(labels) == 1 else None
    return None


def claims(matches: Sequence[Match]) -> bool:
    """Whether anything is claimed at all."""
    return any(match.role in CLAIMING for match in matches)


def stated(text: str, attribute: str) -> str:
    """The part of an answer that is a JSON object's value for the attribute ("answer" and "label" too), else the answer.

    >>> stated('{"emotion": "sad", "why": "not happy"}', "emotion")
    'sad'
    """
    found = re.search(r"\{.*\}", text, re.DOTALL)
    try:
        parsed = json.loads(found.group()) if found else None
    except ValueError:
        return text
    if not isinstance(parsed, dict):
        return text
    for wanted in (attribute.removesuffix("s"), "answer", "label", "value"):
        for key, value in parsed.items():
            if wanted in str(key).casefold() and isinstance(value, (str, int, float)) and not isinstance(value, bool):
                return str(value)
    return text


def bare(text: str) -> str:
    """An answer that is one word or number beside its heading, in lower case, without the heading: "Gender: F" is "f".

    >>> bare("**Option B:** 3."), bare("(a) Male"), bare("A man, I think")
    ('3', 'male', 'a man, i think')
    """
    flat = re.sub(r"[*_`\"'{}]", "", unicodedata.normalize("NFKC", text)).casefold().strip(" .!\t\n")
    flat = re.sub(r"^(?:(?:the )?(?:final )?(?:answer|option|choice)(?: is)?\b[:\s]*)?(?:\(?[a-h]\)|[a-h][.:)])\s+", "", flat)
    return re.sub(r"^(?:[a-z]+ ){0,4}[a-z]+\s*[:=]\s*", "", flat).strip()


def clean(text: str) -> str:
    """Lower case, plain quotes, "n't" as " not", dashes as commas, hyphens and markdown as spaces, "couldn't be happier" as it is meant."""
    flat = unicodedata.normalize("NFKC", text).casefold()
    flat = re.sub(r"[\u2018\u2019`]", "'", flat)
    flat = re.sub(r"[\u201c\u201d]", '"', flat)
    flat = re.sub(r"\bcan't\b|\bcannot\b", "can not", flat)
    flat = re.sub(r"n't\b", " not", flat)
    flat = re.sub(r"'s\b", "", flat)
    flat = re.sub(r"\bcould not be (?=more\b|\w+er\b)", "is ", flat)
    flat = _POLITE.sub(" ", flat)
    flat = re.sub(r" [-\u2013] |\u2014", ", ", flat)
    flat = re.sub(r"[-/*_\u2013]", " ", flat)
    return re.sub(r"\s+", " ", flat)


def tokens_of(cleaned: str) -> list[Token]:
    """The words and marks of a cleaned answer."""
    tokens: list[Token] = []
    for sentence in re.finditer(r"[^.!?]+[.!?]*", cleaned):
        asked, opened = sentence.group().endswith("?"), None
        quotes = [one.start() for one in re.finditer('"', sentence.group())]
        long = {
            at: len(sentence.group()[at:end].split()) > _LABEL_WORDS
            for at, end in zip(quotes[::2], [*quotes[1::2], None], strict=False)
        }
        for piece in re.finditer(r"[\w']+|[^\w\s]", sentence.group()):
            if piece.group() == '"':
                opened = piece.start() if opened is None else None
            else:
                inside = opened is not None
                said = opened is not None and long[opened]
                tokens.append(Token(piece.group().strip("'"), sentence.start() + piece.start(), inside or asked, said))
    return [token for token in tokens if token.text]


def foreign(tokens: Sequence[Token]) -> bool:
    """Whether an answer is in another language, as far as its small words tell; "man" is German for "one"."""
    words = [token.text for token in tokens]
    count = sum(word in _FOREIGN for word in words)
    return count > 1 and count > sum(word in _ENGLISH for word in words)


def table_of(words: Mapping[str, Collection[str]]) -> dict[Phrase, str]:
    """Phrase (as a tuple of words) to class."""
    table: dict[Phrase, str] = {}
    for label, phrases in words.items():
        for phrase in phrases:
            table.setdefault(tuple(re.findall(r"[\w']+", clean(phrase))), label)
    return table


def find_keywords(tokens: Sequence[Token], table: Mapping[Phrase, str], *, inflected: bool, persons: bool = False) -> list[Match]:
    """All keywords in order, the longest phrase first where several begin at one word.

    Args:
        tokens: The answer.
        table: Phrases and their classes.
        inflected: Whether words also match in the usual endings of adjectives.
        persons: Whether the classes are of people, so that "his wife" is somebody else.
    """
    longest = max(map(len, table), default=0)
    spans: list[tuple[int, int, str]] = []
    at = 0
    while at < len(tokens):
        for size in range(min(longest, len(tokens) - at), 0, -1):
            label = lookup(tuple(token.text for token in tokens[at : at + size]), table, inflected=inflected)
            if label is not None and not _discourse(tokens, at):
                spans.append((at, at + size, label))
                at += size
                break
        else:
            at += 1
    return roles(tokens, spans, persons=persons)


def roles(tokens: Sequence[Token], spans: Sequence[tuple[int, int, str]], *, persons: bool = False) -> list[Match]:
    """What an answer does with each (first token, end, class)."""
    inside = {index for start, end, _ in spans for index in range(start, end)}
    echoed = _echoed(tokens, spans)
    made: list[Match] = []
    for start, end, label in spans:
        text = " ".join(token.text for token in tokens[start:end])
        role = "other" if tokens[start].quoted else "context" if start in echoed else _role(tokens, start, end, inside)
        if persons and role in CLAIMING and _somebody_else(tokens, start, inside):
            role = "other"
        made.append(Match(label, text, tokens[start].start, role))
    return made


def lookup(words: Phrase, table: Mapping[Phrase, str], *, inflected: bool) -> str | None:
    """The class of a phrase."""
    if words in table or len(words) > 1:
        return table.get(words)
    forms = stems(words[0]) if inflected else [words[0].removesuffix("s")]
    return next((table[(form,)] for form in forms if (form,) in table), None)


def stems(word: str) -> list[str]:
    """What an inflected emotion word may come from: angrily -> angry, sadder -> sad, calmness -> calm."""
    if word == "surprisingly":  # comments on a fact, names no surprise: "sounds surprisingly happy"
        return []
    forms = []
    for ending in ("ly", "ness", "er", "est", "s"):
        if word.endswith(ending):
            stem = word.removesuffix(ending)
            forms += [stem, stem[:-1] + "y" if stem.endswith("i") else stem, stem[:-1] if stem[-1:] == stem[-2:-1] else stem]
    return [form for form in forms if len(form) > 2]


def negated(tokens: Sequence[Token]) -> bool:
    """Whether a negation stands anywhere."""
    return any(token.text in _NEGATIONS for token in tokens)


def _discourse(tokens: Sequence[Token], at: int) -> bool:
    """Whether the word is a comment on its sentence: "Sadly, the recording is short"."""
    opens = at == 0 or tokens[at - 1].text in ".!?"
    return opens and tokens[at].text.endswith("ly") and at + 1 < len(tokens) and tokens[at + 1].text == ","


def _echoed(tokens: Sequence[Token], spans: Sequence[tuple[int, int, str]]) -> set[int]:
    """The first tokens of the keywords that stand in brackets as the question's options."""
    found: set[int] = set()
    opened: int | None = None
    for index, token in enumerate([*tokens, Token(")", -1, shadow=False)]):
        if token.text == "(":
            opened = index
        elif token.text == ")" and opened is not None:
            here = [(start, label) for start, _, label in spans if opened < start < index]
            if len({label for _, label in here}) >= _OFFERED:
                found |= {start for start, _ in here}
            opened = None
    return found


def _role(tokens: Sequence[Token], start: int, end: int, inside: set[int]) -> Role:
    """The role of the keyword in tokens start..end, from the cues in its clause."""
    cues = _before(tokens, start, inside)
    near = cues[:_REACH]
    for index, word in enumerate(near):
        follower = near[index - 1] if index else ""
        if (word in _NEGATIONS and follower not in _NOT_NEGATING) or (word, follower) in _NEGATION_PAIRS:
            return "rejected"
        if word == "than" and "less" not in cues:
            return "rejected"
    if near[:1] == ["less"] and any(token.text == "than" for token in tokens[end : end + _REACH]):
        return "rejected"
    if tokens[start].shadow or any(word in _SUBORDINATE for word in cues):
        return "context"
    if any(word in _SUPPOSED for word in cues) and _taken_back(tokens, end):
        return "context"
    if any(word in _HEDGES for word in near):
        return "hedged"
    after = [token.text for token in tokens[end : end + _REACH]]
    if after[:1] in (["is"], ["being"], ["as"]) and any(word in _SINGLED_OUT for word in after):
        return "main"
    return "main" if any(word in _MAIN for word in near) else "claimed"


def _taken_back(tokens: Sequence[Token], end: int) -> bool:
    """Whether the next clause turns against this one."""
    for index in range(end, len(tokens)):
        if tokens[index].text in _BREAKS:
            return any(token.text in _CONTRAST for token in tokens[index : index + 2])
    return False


def _somebody_else(tokens: Sequence[Token], start: int, inside: set[int]) -> bool:
    """Whether a person is named as whom the speaker deals with ("a man is calling his wife") or belongs to ("her husband")."""
    clause: list[int] = []
    at = start - 1
    while at >= 0 and tokens[at].text not in _BREAKS:
        clause.append(at)
        at -= 1
    words = [tokens[index].text for index in clause]
    if (words[:1] and words[0] in _POSSESSIVES) or (words[1:] and words[1] in _THIRD and words[0] not in _DETERMINERS):
        return True
    subject = any(index in inside or tokens[index].text in _PRONOUNS or tokens[index].text == "speaker" for index in clause)
    # Nearest first: an adjective, an article, and then what governs them.
    phrase = words[1:] if words[:1] and words[0] not in _DETERMINERS | _TOWARDS | _DEALINGS else words
    phrase = phrase[1:] if phrase[:1] and phrase[0] in _DETERMINERS else phrase
    governed = bool(phrase) and (phrase[0] in _TOWARDS or phrase[0] in _DEALINGS)
    return subject and governed and any(word in _DEALINGS for word in words)


def _before(tokens: Sequence[Token], start: int, inside: set[int]) -> list[str]:
    """The words before a keyword, nearest first, back to the start of its clause; coordinated keywords and their "or" are passed over.

    "and" ends the clause unless it joins two keywords: in "not angry and sad" the negation reaches both, in "is not well and sounds sad"
    it does not reach "sad".
    """
    words: list[str] = []
    at = start - 1
    while at >= 0:
        word = tokens[at].text
        passed = (word == "instead" and words[:1] == ["of"]) or (word == "," and _in_list(tokens, at, inside))
        if word in _BREAKS and not passed:
            # What begins a subordinate clause is its cue as well.
            if word in _SUBORDINATE:
                words.append(word)
            break
        if word == "and" and not (at - 1 in inside and at + 1 in inside):
            break
        if at not in inside and word not in ("and", "or", ","):
            words.append(word)
        at -= 1
    return words


def _in_list(tokens: Sequence[Token], comma: int, inside: set[int]) -> bool:
    """Whether a comma stands inside a list that ends in "or": "not anger, fear or sadness"; in "not angry, sad" it ends the clause."""
    if comma - 1 not in inside:
        return False
    after = comma + 1
    while after < len(tokens) and (after in inside or tokens[after].text == ","):
        after += 1
    return after < len(tokens) and tokens[after].text == "or"
