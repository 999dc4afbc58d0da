"""Which labellers there are, what each gives, and how it is configured: `undertone labellers`. None is loaded for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undertone.errors import UndertoneError
from undertone.label.protocol import LABELLERS, Category, Emission, Labeller, Scalar

_SETTLED = ("version", "hears", "rate_hz", "min_ms", "max_ms", "licence", "emits")


@dataclass(frozen=True)
class _Known:
    """What is declared of a labeller; None for what its weights or its configuration say."""

    about: str
    config: str
    weighs: bool  # whether it is a class, which may have weights
    version: str | None
    hears: str | None
    rate_hz: int
    min_ms: int
    max_ms: int | None
    licence: str | None
    emits: Sequence[Emission] | None
    model: str | None
    revisions: Mapping[str, str]


def overview() -> Iterator[str]:
    """A line for each labeller: its name, what it hears, and what it gives."""
    for name in LABELLERS.names():
        try:
            one = _known(name)
        except UndertoneError as error:
            yield f"{name:22} {error}"
            continue
        yield f"{name:22} {one.hears or '?':10} {', '.join(line.partition(':')[0] for line in _emissions(one))}"


def about(name: str) -> str:
    """All that a user needs to name a labeller in a study: what it gives, its bounds, its weights, its configuration.

    Raises:
        ConfigError: There is no labeller of that name.
    """
    one = _known(name)
    longest = "any length" if one.max_ms is None else f"{one.max_ms} ms"
    facts = [
        f"{name}: {one.about}",
        "",
        f"version    {one.version or 'that of its weights'}",
        f"hears      a {one.hears or 'stretch'} at {one.rate_hz} Hz, {one.min_ms} ms to {longest}",
        *(f"gives      {line}" for line in _emissions(one)),
        f"licence    {one.licence or ('that of its weights' if one.weighs else 'no weights')}",
        *([f"model      {one.model}, where none is given"] if one.model else []),
        *(f"revision   {model}@{revision}" for model, revision in one.revisions.items()),
    ]
    if one.config:
        facts += ["", "config", one.config]
    return "\n".join([*facts, "", f"In a study:  label: {{labellers: [{{use: {name}, config: {{...}}}}]}}"])


def _known(name: str) -> _Known:
    """What is declared, of a class, of a decorated function (which may want configuration), or of whatever else makes a labeller."""
    maker = LABELLERS.maker(name)
    if isinstance(maker, type) and issubclass(maker, Labeller):
        own = {key: value for key in _SETTLED if not hasattr(value := getattr(maker, key), "__get__")}
        configured = maker.__init__ is not Labeller.__init__
        parameters = inspect.signature(maker).parameters if configured else {}
        model = parameters["model"].default if "model" in parameters else None
        revisions = getattr(maker, "revisions", {})
        weighs = bool(revisions) or "licence" not in own or "model" in parameters
        return _of(
            own,
            about=inspect.getdoc(maker) or "",
            config=_arguments(maker.__init__) if configured else "",
            weighs=weighs,
            model=model if isinstance(model, str) else None,
            revisions=revisions,
        )
    made = inspect.getclosurevars(maker).nonlocals if inspect.isfunction(maker) else {}
    author, settled = made.get("author"), made.get("settings")
    if author is None or settled is None:  # a plugin's own way to make one
        return _of({}, about=inspect.getdoc(maker) or "", config=_listed(maker), weighs=True)
    settled = {"hears": Labeller.hears, **settled}
    return _of(settled, about=inspect.getdoc(author) or "", config=_arguments(author) or _listed(author), weighs=False)


def _of(settled: Mapping[str, Any], **more: Any) -> _Known:
    base: dict[str, Any] = {**dict.fromkeys(_SETTLED), "rate_hz": Labeller.rate_hz, "min_ms": 0, "model": None, "revisions": {}}
    return _Known(**{**base, **{key: value for key, value in settled.items() if key in _SETTLED}, **more})


def _arguments(function: Any) -> str:
    """The arguments as the docstring describes them."""
    described = (inspect.getdoc(function) or "").split("Args:")
    return described[1].split("\n\n")[0].strip("\n") if len(described) == 2 else ""


def _listed(function: Any) -> str:
    """The keyword arguments with their types and defaults, where no docstring describes them."""
    lines = []
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY:
            default = "needed" if one.default is one.empty else f"{one.default!r} by default"
            lines.append(f"    {one.name}: {inspect.formatannotation(one.annotation).strip(chr(39))}, {default}")
    return "\n".join(lines)


def _emissions(one: _Known) -> Iterator[str]:
    if one.emits is None:
        yield "what its model or its configuration says"
        return
    for value in one.emits:
        if isinstance(value, Category):
            yield f"{value.attribute}: {', '.join(value.classes) or 'a class'}"
        elif isinstance(value, Scalar):
            bounds = "" if value.low is None else f", {value.low:g} to {value.high:g}"
            yield f"{value.attribute}: a number{f' in {value.unit}' if value.unit else ''}{bounds}"
        else:
            yield f"{value.attribute}: text, and words with times"
