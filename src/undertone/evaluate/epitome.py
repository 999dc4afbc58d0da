"""`epitome-small`: empathy levels of a reply to what somebody said, from words and their parts, without torch.

One linear model per mechanism of EPITOME (Sharma et al., 2020) over hashed word 1-3-grams and character 3-5-grams, weighted by tf-idf.
It reads the whole reply, then each sentence by itself; the probabilities of the whole and of the sentence that most likely carries the
mechanism are averaged, for empathy stands in one sentence of a reply more often than in all of it. Trained by `recipes/epitome`, on Reddit
posts; how well it does, and what it does not see, stands in `models/epitome-small/README.md`.
"""

from __future__ import annotations

import html
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.sparse import csr_matrix, hstack

from undertone.errors import DataError, DependencyError, ModelError
from undertone.label.affect import MODELS_VARIABLE
from undertone.records import UnscoredReason

Mechanism = Literal["emotional_reaction", "interpretation", "exploration"]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)
LEVELS = 3
"""0 none, 1 weak, 2 strong."""

MODEL_NAME = "epitome-small"
BUCKETS = 1 << 16
DENSE = 5
"""Columns after the hashed ones: length, questions, words about oneself, words about the other, words shared with the seeker."""

Floats = NDArray[np.float64]

_TOKEN = re.compile(r"[:;=]-?[()DPp/]|<3|[a-z]+(?:'[a-z]+)*|\d+|[?!.,]+|[^\s\w]")
_LINK = re.compile(r"https?://\S+|\[[^\]]*\]\([^)]*\)")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})
_SELF = frozenset({"i", "my", "me", "i'm", "i've", "i'd"})
_LARGEST_FILE_BYTES = 15_000_000


@dataclass(frozen=True)
class EmpathyScores:
    """Levels of several replies, in their order; a reply without any word has none.

    Attributes:
        levels: int8 of shape (replies, 3), columns as in `MECHANISMS`: 0 none, 1 weak, 2 strong, -1 unscored.
        expected: Mean of the levels under the scorer's probabilities, shape (replies, 3), 0..2; NaN where unscored.
        unscored: Why a reply has no levels, None where it has.
    """

    levels: NDArray[np.int8]
    expected: Floats
    unscored: tuple[UnscoredReason | None, ...]


class Parts(NamedTuple):
    """Texts as the linear models read them: hashed counts (texts, `BUCKETS`) and dense columns (texts, `DENSE`)."""

    hashed: csr_matrix
    dense: Floats


class Card(BaseModel):
    """The part of `model.json` that inference reads."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: str
    licence: str
    sha256: str


class EpitomeSmall:
    """Scores replies with the shipped linear models; reads its weights at the first use, and pickles without them."""

    name = MODEL_NAME

    def __init__(self, path: Path | None = None) -> None:
        """Store the place; None looks in `$UNDERTONE_MODELS/epitome-small`, then in `models/` of the source checkout."""
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @property
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All three."""
        return MECHANISMS

    @property
    def revision(self) -> str:
        """Which weights exactly."""
        return self.card.sha256[:16]

    @cached_property
    def card(self) -> Card:
        """What inference reads of the model card.

        Raises:
            DependencyError: The weights are not here.
            ModelError: `model.json` does not read.
        """
        file = find_model(self.path) / "model.json"
        try:
            return Card.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise ModelError(f"{file}: not a model card of {MODEL_NAME}: {error}. {_HOW_TO_GET}") from error

    @cached_property
    def _weights(self) -> tuple[Floats, Floats, Floats]:
        """Inverse document frequencies (BUCKETS,), coefficients (3, 3, BUCKETS + DENSE) and biases (3, 3)."""
        return read_weights(find_model(self.path) / "model.npz")

    def score(self, seeker: Sequence[str], response: Sequence[str]) -> EmpathyScores:
        """The levels of each response to what the seeker said; neither depends on what else is in the call.

        Raises:
            DataError: There are not as many seekers as responses.
            DependencyError: The weights are not here.
        """
        same_length(seeker, response)
        reasons = tuple(unscored_reply(one) for one in response)
        kept = [index for index, reason in enumerate(reasons) if reason is None]
        chances = np.full((len(response), len(MECHANISMS), LEVELS), np.nan)
        if kept:
            chances[kept] = self.chances([seeker[index] for index in kept], [response[index] for index in kept])
        return from_chances(chances, reasons)

    def chances(self, seeker: Sequence[str], response: Sequence[str]) -> Floats:
        """Probabilities of the levels, shape (responses, 3 mechanisms, 3 levels), of responses that have words."""
        idf, coefficients, biases = self._weights
        whole = probabilities(parts(seeker, response), idf, coefficients, biases)
        owner, texts = split_all(response)
        each = probabilities(parts([seeker[index] for index in owner], texts), idf, coefficients, biases)
        return (whole + best_sentence(each, owner, len(response))) / 2

    def carrying(self, seeker: str, response: str) -> dict[Mechanism, str]:
        """The sentence of a response that most likely carries each mechanism, whether or not it has it at all."""
        _, texts = split_all([response])
        each = probabilities(parts([seeker] * len(texts), texts), *self._weights)
        return {name: texts[int(each[:, index, 0].argmin())] for index, name in enumerate(MECHANISMS)}


def probabilities(texts: Parts, idf: Floats, coefficients: Floats, biases: Floats) -> Floats:
    """Softmax of each mechanism's linear model, shape (texts, 3, 3)."""
    # One sparse product: a dense one adds in an order that depends on how many rows there are, and last digits with it.
    rows = hstack([weigh(texts.hashed, idf), csr_matrix(texts.dense)]).tocsr()
    logits = np.stack([rows @ one.T + bias for one, bias in zip(coefficients, biases, strict=True)], axis=1)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def best_sentence(each: Floats, owner: Sequence[int], count: int) -> Floats:
    """Of each text the row of the sentence with the least chance of level 0, per mechanism; shape (count, 3, 3)."""
    owners = np.asarray(owner)
    found = np.empty((count, *each.shape[1:]))
    for index in range(count):
        own = each[owners == index]
        best = own[:, :, 0].argmin(axis=0)
        found[index] = own[best, np.arange(own.shape[1])]
    return found


def from_chances(chances: Floats, reasons: tuple[UnscoredReason | None, ...]) -> EmpathyScores:
    """Levels and their means from probabilities (replies, mechanisms, levels); rows of NaN are unscored."""
    missing = np.isnan(chances).any(axis=-1)
    levels = np.where(missing, -1, np.nan_to_num(chances).argmax(axis=-1)).astype(np.int8)
    return EmpathyScores(levels=levels, expected=chances @ np.arange(LEVELS, dtype=np.float64), unscored=reasons)


def unscored_reply(text: str) -> UnscoredReason | None:
    """Why a reply cannot have levels: one without any word says nothing, which is not the same as level 0."""
    return None if re.search(r"\w", text) else "unreadable"


def same_length(seeker: Sequence[str], response: Sequence[str]) -> None:
    """Raise DataError unless there is one response for each seeker's text."""
    if len(seeker) != len(response):
        raise DataError(f"empathy is scored on pairs, got {len(seeker)} texts of seekers and {len(response)} responses")


def tokens(text: str) -> list[str]:
    """Words in lower case, runs of punctuation, and emoticons.

    >>> tokens("I&#39;m sorry :( How are you?!")
    ["i'm", 'sorry', ':(', 'how', 'are', 'you', '?!']
    """
    return _TOKEN.findall(_clean(text).lower())


def sentences(text: str) -> list[str]:
    """The sentences that hold a word; the whole text where there is none."""
    return [one for one in _SENTENCE.split(_clean(text)) if re.search(r"\w", one)] or [text]


def split_all(texts: Sequence[str]) -> tuple[list[int], list[str]]:
    """The sentences of all texts, and which text each is of."""
    found = [(index, one) for index, text in enumerate(texts) for one in sentences(text)]
    return [index for index, _ in found], [one for _, one in found]


def parts(seeker: Sequence[str], response: Sequence[str]) -> Parts:
    """What the models read of responses, each beside what the seeker said."""
    said = [tokens(one) for one in response]
    dense = [_dense(words, set(tokens(before))) for words, before in zip(said, seeker, strict=True)]
    return Parts(hashed=_hashed(said), dense=np.array(dense, dtype=np.float64).reshape(len(said), DENSE))


def weigh(hashed: csr_matrix, idf: Floats) -> csr_matrix:
    """Counts times inverse document frequency, each row of length 1."""
    scaled = csr_matrix((hashed.data * idf[hashed.indices], hashed.indices, hashed.indptr), shape=hashed.shape)
    lengths = np.sqrt(np.asarray(scaled.multiply(scaled).sum(axis=1)).ravel())
    scaled.data /= np.maximum(np.repeat(lengths, np.diff(scaled.indptr)), 1e-9)
    return scaled


def read_weights(file: Path) -> tuple[Floats, Floats, Floats]:
    """The arrays of `model.npz`, in double precision.

    Raises:
        ModelError: The file does not hold them.
    """
    try:
        if file.stat().st_size > _LARGEST_FILE_BYTES:
            raise ValueError(f"{file.stat().st_size:,} bytes are more than such a model has")
        with np.load(file, allow_pickle=False) as held:
            idf, coefficients, biases = (held[name].astype(np.float64) for name in ("idf", "coefficients", "biases"))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{file}: not the weights of {MODEL_NAME}: {error}. {_HOW_TO_GET}") from error
    wanted = ((BUCKETS,), (len(MECHANISMS), LEVELS, BUCKETS + DENSE), (len(MECHANISMS), LEVELS))
    if (idf.shape, coefficients.shape, biases.shape) != wanted:
        raise ModelError(
            f"{file}: arrays of shape {idf.shape}, {coefficients.shape} and {biases.shape}, expected {wanted}. {_HOW_TO_GET}"
        )
    return idf, coefficients, biases


def find_model(path: Path | None = None) -> Path:
    """The model's folder.

    Raises:
        DependencyError: It is not here; the message says how to get it.
    """
    if path is not None:
        folder = Path(path)
    elif variable := os.environ.get(MODELS_VARIABLE):
        folder = Path(variable) / MODEL_NAME
    else:
        folder = Path(__file__).resolve().parents[3] / "models" / MODEL_NAME
    if not (folder / "model.npz").is_file():
        raise DependencyError(f"the weights of '{MODEL_NAME}' are not installed (looked in {folder}). {_HOW_TO_GET}")
    return folder


_HOW_TO_GET = (
    f"Take models/{MODEL_NAME} from the source repository and point {MODELS_VARIABLE} at the folder that holds it, "
    f"or train it: python recipes/epitome --data DATA --out models/{MODEL_NAME}"
)


def _clean(text: str) -> str:
    """Without the escapes of web pages (Reddit escapes twice), curly quotes and links."""
    return _LINK.sub(" URL ", html.unescape(html.unescape(text)).translate(_STRAIGHT))


def _dense(words: Sequence[str], before: set[str]) -> list[float]:
    """Scaled to about 0..1, so that one penalty fits these columns and the hashed ones."""
    count = max(len(words), 1)
    return [
        float(np.log1p(len(words))) / 5,
        min(words.count("?"), 3) / 3,
        5 * sum(one in _SELF for one in words) / count,
        5 * sum(one.startswith("you") for one in words) / count,
        len(before & set(words)) / count,
    ]


def _hashed(said: Iterable[Sequence[str]]) -> csr_matrix:
    """1 + log(count) of each n-gram in the bucket of its hash; of several in one bucket, the largest."""
    starts: list[int] = [0]
    places: list[int] = []
    values: list[float] = []
    for words in said:
        row: dict[int, float] = {}
        for gram, count in _grams(words).items():
            bucket = zlib.crc32(gram.encode()) % BUCKETS
            row[bucket] = max(row.get(bucket, 0.0), 1 + float(np.log(count)))
        places += row.keys()
        values += row.values()
        starts.append(len(places))
    return csr_matrix((np.array(values), np.array(places, dtype=np.int32), np.array(starts)), shape=(len(starts) - 1, BUCKETS))


def _grams(words: Sequence[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    held = ["<s>", *words, "</s>"]
    for width in (1, 2, 3):
        found.update("w " + " ".join(held[start : start + width]) for start in range(len(held) - width + 1))
    for word, count in Counter(words).items():
        marked = f"<{word}>"
        for width in (3, 4, 5):
            for start in range(len(marked) - width + 1):
                found["c " + marked[start : start + width]] += count
    return found
