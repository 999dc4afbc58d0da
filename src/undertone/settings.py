"""Study files: YAML in, a validated study out; all problems at once, each with what was expected.

Generic over the model it fills, so that it knows nothing of the stages: `study.py` says what a study is.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from undertone.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: The file is missing, is not YAML, or is not a mapping.
    """
    if not path.is_file():
        raise ConfigError(f"study file {path} does not exist. Start from a shipped one: undertone run --show demo > study.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected keys and values such as 'seed: 1'")
    return content


def override(content: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Apply `key.key=value` settings of the command line; values are YAML ("3", "true", "[a, b]").

    Raises:
        ConfigError: A setting has no "=", or its path leads through something that is no mapping or list.
    """
    made: dict[str, Any] = _copied(content)
    for setting in settings:
        path, sign, text = setting.partition("=")
        if not sign or not path:
            raise ConfigError(f"--set {setting!r}: expected key=value, such as --set train.steps=200")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting!r}: the value is not YAML: {error}") from error
        _put(made, path.split("."), value, setting)
    return made


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping laid over another, key by key into sections.

    A section that is of another `kind`, or that gives a `name` where the other gives a `config` (or the other way round), replaces the
    whole section: keys of the one would be unknown to the other.

    >>> merged({"adapter": {"kind": "mlp", "stack": 15}, "lora": None}, {"adapter": {"kind": "conv"}, "lora": {"r": 4}})
    {'adapter': {'kind': 'conv'}, 'lora': {'r': 4}}
    """
    made: dict[str, Any] = _copied(under)
    for key, value in over.items():
        below = made.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _another(below, value):
            made[key] = merged(below, value)
        else:
            made[key] = _copied(value)
    return made


def _another(below: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    kinds = "kind" in value and value["kind"] != below.get("kind", value["kind"])
    sources = any(
        below.get(one) is not None and value.get(other) is not None for one, other in (("name", "config"), ("config", "name"))
    )
    return kinds or sources


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _put(into: Any, keys: Sequence[str], value: Any, setting: str) -> None:
    for index, key in enumerate(keys):
        last = index == len(keys) - 1
        if isinstance(into, list) and key.isdigit() and int(key) < len(into):
            if last:
                into[int(key)] = value
            else:
                into = into[int(key)]
        elif isinstance(into, dict):
            if last:
                into[key] = value
            else:
                # A section that is absent, or named without content (`label:`), is begun here.
                into[key] = into[key] if into.get(key) is not None else {}
                into = into[key]
        else:
            raise ConfigError(f"--set {setting!r}: {'.'.join(keys[:index])} has no key {key!r}")


def validated(model: type[M], content: Mapping[str, Any], *, where: str) -> M:
    """Build a model from a mapping.

    Args:
        model: What to build.
        content: Keys and values.
        where: Name of the file, for the message.

    Raises:
        ConfigError: With every problem: unknown keys with the nearest known one, wrong values with what was expected.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(model, one) for one in error.errors()))
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{where} has {count}: {'; '.join(problems)}") from None


def _problem(model: type[BaseModel], error: Any) -> str:
    location, beside = _walked(model, error["loc"])
    path = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), beside, n=1, cutoff=0.5)
        return f"{path}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")
    if error["type"] == "missing":
        return f"{path}: missing"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be ", "expected ")
    given = error.get("input")
    return f"{path}: got {given!r}, {message}" if not isinstance(given, BaseModel | Mapping) else f"{path or 'study'}: {message}"


def _walked(model: type[BaseModel], location: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """An error's location as the file has it, and the names of the fields beside its last key.

    pydantic puts the tag of a union's member ("folder") into the location although the file has no such key; it is left out.
    """
    models, path, beside = [model], [], list(model.model_fields)
    for index, part in enumerate(location):
        last = index == len(location) - 1
        stepped = [step for one in models if part in one.model_fields for step in _models_in(one.model_fields[part].annotation)]
        is_key = isinstance(part, int) or last or any(part in one.model_fields for one in models)
        if not is_key and len(models) > 1:
            continue
        path.append(part)
        beside = [name for one in models for name in one.model_fields]
        models = stepped or models
    return path, beside


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for one in typing.get_args(annotation) for found in _models_in(one)]
