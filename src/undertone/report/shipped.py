"""The texts that pages are made of, and how a page is put together from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined


def shipped(name: str) -> str:
    """A text that comes with this package."""
    return resources.files("undertone.report").joinpath(name).read_text(encoding="utf-8")


def rendered(name: str, values: Mapping[str, Any], *, filters: Mapping[str, Callable[..., str]] | None = None) -> str:
    """A page of one of the shipped templates.

    What came from data is escaped; what is not, is marked by who gives it (`markupsafe.Markup`). Unknown names are an error and not an
    empty string: a part of a page must not vanish because of a misspelt field.

    Args:
        name: Of the template.
        values: Its names.
        filters: Its filters beside jinja's own.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters or {})
    return environment.from_string(shipped(name)).render(values)
