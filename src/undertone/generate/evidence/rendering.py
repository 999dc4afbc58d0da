"""Clips as text and back, in a form that a study names: `render(clip, "seed", budget=400)`, `parse(text, "seed")`."""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points

from undertone.errors import ConfigError, DependencyError
from undertone.generate.evidence.budget import Count, estimated_tokens, fitted
from undertone.generate.evidence.dimensional import Dimensional, Words
from undertone.generate.evidence.form import Form
from undertone.generate.evidence.lines import Evidence, lines_of
from undertone.generate.evidence.metadata import Metadata
from undertone.generate.evidence.seed import Seed
from undertone.records import Clip

ENTRY_POINTS = "undertone.evidence"
"""The group of entry points in which installed packages name their own classes of forms."""

FORMS: dict[str, Form] = {one.name: one for one in (Words(), Dimensional(), Seed(), Metadata())}
"""The forms by name; `register` adds one's own."""


def register(form: Form) -> None:
    """Make a form known by its name.

    Raises:
        ConfigError: Another form has that name.
    """
    if form.name in FORMS and type(FORMS[form.name]) is not type(form):
        raise ConfigError(f"form of evidence {form.name!r} is registered twice; choose another name")
    FORMS[form.name] = form


def known_forms() -> list[str]:
    """The names of all forms, those of installed packages among them."""
    return sorted({*FORMS, *entry_points(group=ENTRY_POINTS).names})


def form_named(name: str) -> Form:
    """The form of that name, built-in, registered, or of an installed package.

    Raises:
        ConfigError: There is none; the message lists the known ones.
        DependencyError: The package that gives it does not load.
    """
    if name in FORMS:
        return FORMS[name]
    plugins = entry_points(group=ENTRY_POINTS)
    for entry in plugins.select(name=name):
        try:
            register(entry.load()())
        except Exception as error:  # the edge: a plugin may fail in any way, and its user must learn which one
            raise DependencyError(
                f"form of evidence {name!r} of {entry.value} does not load: {type(error).__name__}: {error}; upgrade its package"
            ) from error
    if name not in FORMS:
        known = known_forms()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(f"form of evidence: got {name!r}, {hint}expected one of {', '.join(known)}")
    return FORMS[name]


def gather(clip: Clip, form: str = "dimensional", *, budget: int | None = None, count: Count = estimated_tokens) -> Evidence:
    """The evidence of a clip, as a form will show it.

    Args:
        clip: Its segments' labels are what is told, whoever gave them.
        form: One of `FORMS`.
        budget: The most tokens of its text; what is left out beyond it is said in the text and in `Evidence.left_out_ms`
            (the rule: `budget`). None for all.
        count: How tokens are counted.
    """
    named = form_named(form)
    evidence = Evidence(parts=lines_of(clip, named.grain))
    return evidence if budget is None else fitted(evidence, named, budget, count)


def render(clip: Clip, form: str = "dimensional", *, budget: int | None = None, count: Count = estimated_tokens) -> str:
    """The evidence of a clip as text; arguments as for `gather`."""
    return form_named(form).text(gather(clip, form, budget=budget, count=count))


def parse(text: str, form: str = "dimensional") -> Evidence:
    """What a text that `render` wrote says of a clip, at the rounding of its form.

    Raises:
        DataError: It is not of this form.
    """
    return form_named(form).parse(text)
