"""Classes that a question offers, and which of an answer's words stand for which of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from undertone.errors import ConfigError
from undertone.evaluate.mapping.keywords import clean, lookup, table_of
from undertone.evaluate.mapping.words import EMOTION_FINER, LAYERS, Words

Layers = tuple[Words, ...]

BETWEEN = {"frustrated": "annoyed"}
"""Shade -> the shade between it and its broad class: where "frustration" is offered beside "anger", "annoyed" says neither."""


@functools.lru_cache(maxsize=256)
def offered_layers(attribute: str, among: tuple[str, ...]) -> Layers:
    """The layers of words of an attribute with the offered names as classes, as far as they are; other classes keep ours.

    An offered name takes the words of the narrowest group that it is a word of: beside "frustration", "anger" has all words of anger but those
    of frustration; without it, "annoyed" and "frustrated" are "anger" as well. A name that is no word of ours is its own only word.

    Raises:
        ConfigError: Two names stand for the same words, or a name is offered twice.
    """
    if len(set(among)) != len(among) or not among:
        raise ConfigError(f"the offered classes must be one or more different names, got {', '.join(among) or 'none'}")
    layers = LAYERS.get(attribute, ({},))
    finer = EMOTION_FINER if attribute == "emotion" else {}
    coarse = {name: _group(name, layers) for name in among}
    narrow = {name: _group(name, (finer,)) for name in among}
    # A name means its narrow group only beside another of the same broad one: alone, "fear" and "anxious" mean the same class.
    owner: dict[str, str] = {}
    shades: dict[str, str] = {}
    for name in among:
        shared = [other for other in among if other != name and coarse[other] is not None and coarse[other] == coarse[name]]
        group, shade = coarse[name], narrow[name]
        taken, key = (shades, shade) if shared and shade is not None else (owner, group)
        if key is None:
            continue
        if key in taken:
            raise ConfigError(f"the offered classes {taken[key]!r} and {name!r} stand for the same words; offer one of them")
        taken[key] = name
    words_of_shades = {word: name for shade, name in shades.items() for word in (*finer[shade], name)}
    between = {word for shade in BETWEEN if shade in shades for word in finer.get(BETWEEN[shade], ())}
    made: list[Words] = []
    for layer in layers:
        renamed: dict[str, list[str]] = {}
        for group, words in layer.items():
            for word in words:
                if word in between and word not in words_of_shades:
                    continue
                renamed.setdefault(words_of_shades.get(word, owner.get(group, group)), []).append(word)
        made.append({name: tuple(words) for name, words in renamed.items()})
    first: dict[str, tuple[str, ...]] = dict(made[0])
    first = {name: (clean(name), *first.pop(name, ())) for name in among} | first
    return (first, *made[1:])


def _group(name: str, layers: Layers) -> str | None:
    """The class that a name is a word of."""
    words = tuple(clean(name).split())
    for layer in layers:
        label = lookup(words, table_of(_with_names(layer)), inflected=True)
        if label is not None:
            return label
    return None


def _with_names(layer: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: (name, *words) for name, words in layer.items()}
