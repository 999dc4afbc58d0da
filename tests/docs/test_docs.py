"""What is documented is run: README and docs code, commands, YAML, docstring examples. Each test says how many it found."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
import yaml

import undertone
from tests.conftest import ROOT
from undertone import recipe, settings
from undertone.cli import app
from undertone.label.protocol import LABELLERS
from undertone.study import Study, load_study

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, pages: list[Path] = PAGES) -> Iterator[tuple[str, str]]:
    for page in pages:
        for index, found in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)):
            yield f"{page.name}:{index}", found


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for _, block in blocks("bash") for line in block.splitlines()]
    inline = re.findall(r"`(undertone [^`]+)`", "\n".join(page.read_text() for page in PAGES))
    return [line for line in [*lines, *inline] if line.startswith("undertone ") and "|" not in line and "..." not in line]


def test_every_undertone_command_in_the_docs_parses() -> None:
    command = typer.main.get_command(app)
    found = commands()
    assert len(found) >= 8
    for line in found:
        words = shlex.split(line.split(">")[0])[1:]
        name, args = words[0], words[1:]
        sub = command.commands[name]  # type: ignore[attr-defined]
        args = args or ["x", "--out", "y"] if name == "label" else args
        required = [one for one in sub.params if one.required]
        if args or not required:
            sub.make_context(name, list(args))


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    found = re.findall(r"\bmake ([a-z-]+)", "\n".join(block for _, block in blocks("bash")))
    assert {"demo", "test"} <= set(found) <= targets


def test_every_yaml_block_is_a_valid_part_of_a_study() -> None:
    base = yaml.safe_load((ROOT / "src/undertone/configs/demo.yaml").read_text())
    found = list(blocks("yaml"))
    assert len(found) >= 1
    for where, text in found:
        settings.validated(Study, base | yaml.safe_load(text), where=where)


def test_the_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader", reason="the README's example reads the demonstration corpus")
    found = list(blocks("python"))
    assert len(found) >= 3
    monkeypatch.chdir(tmp_path)
    with recipe.running(load_study("demo", ["corpora.0.train=1", "corpora.0.test=1"]), Path("runs/demo"), workers=1) as run:
        recipe.corpora(run)
    known = set(LABELLERS.names())
    for where, text in found:
        module = ModuleType(where)
        monkeypatch.setitem(sys.modules, where, module)  # pydantic looks up where a class was made
        exec(compile(text, where, "exec"), module.__dict__)
    said = capsys.readouterr().out
    assert "2 in = 2 kept + 0 dropped + 0 failed" in said
    for name in set(LABELLERS.names()) - known:
        LABELLERS.remove(name)


def test_docstring_examples_run() -> None:
    attempted = 0
    for module in pkgutil.walk_packages(undertone.__path__, "undertone."):
        if module.name.split(".")[1] in ("train",) or module.name.endswith(("speech_llm", "subjects", "adapters", "collate")):
            continue  # torch: their examples, if any, stand in tests
        result = doctest.testmod(importlib.import_module(module.name))
        assert result.failed == 0, module.name
        attempted += result.attempted
    assert attempted >= 5


def test_no_machine_paths_no_registry_hosts_in_the_repository() -> None:
    import subprocess

    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    assert len(files) > 50
    for name in filter(None, files):
        path = ROOT / name
        if path.suffix in {".onnx", ".png", ".safetensors"} or not path.is_file() or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        for forbidden in ("/wor" + "k/", "/ro" + "ot/", "/home" + "/", "pypi" + ".org/simple"):
            assert forbidden not in text, f"{name} holds {forbidden}"
