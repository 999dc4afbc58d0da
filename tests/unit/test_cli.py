"""The command line: quick help, clear errors, exit codes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from undertone import errors

COMMANDS = (
    "run",
    "label",
    "condense",
    "generate",
    "strategies",
    "sweep",
    "compare",
    "validate-judge",
    "benchmarks",
    "train",
    "evaluate",
    "report",
    "export",
    "ask",
    "labellers",
    "doctor",
)


def undertone(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "undertone.cli", *args], capture_output=True, text=True, check=False, cwd=cwd)


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    shown = undertone("--help")
    assert shown.returncode == 0
    assert set(re.findall(r"^  (\w[\w-]*)  +[A-Z]", shown.stdout, re.M)) == set(COMMANDS)
    code = (
        "import sys, undertone.cli; print(sorted({'torch', 'transformers', 'pyarrow', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_the_whole_recipe_loads_without_torch() -> None:
    code = "import sys, undertone.recipe; print(sorted({'torch', 'transformers', 'peft', 'ray', 'matplotlib.pyplot'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    shown = undertone(command, "--help")
    assert shown.returncode == 0
    assert (
        f"Usage: python -m undertone.cli {command}" in shown.stdout.replace("undertone.cli.py", "undertone.cli")
        or command in shown.stdout
    )
    assert len(shown.stdout.splitlines()) > 5


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("run", "none.yaml"), 2, "ConfigError: study file none.yaml does not exist"),
        (
            ("run", "demo", "--set", "train.stepz=3"),
            2,
            "ConfigError: demo has 1 problem: train.stepz: unknown key, did you mean 'steps'?",
        ),
        (("condense", "."), 3, "DataError: . is not a run's folder (no run.json). Begin with: undertone label FOLDER --out ."),
        (("label", "empty", "--out", "o"), 3, "DataError: corpus folder empty holds no audio"),
        (("label", "empty"), 2, "Missing option '--out'"),
        (("fly",), 2, "No such command 'fly'"),
        (("ask", "nowhere", "a.wav", "why?"), 6, "ModelError: "),
    ],
)
def test_errors_end_with_their_exit_code_and_no_traceback(args: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = undertone(*args, cwd=tmp_path)
    assert ran.returncode == code, ran.stderr
    assert message in ran.stderr
    assert "Traceback" not in ran.stderr


def test_missing_weights_are_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "a.wav").touch()
    command = [sys.executable, "-m", "undertone.cli", "label", "speech", "--out", "o"]
    environment = {**os.environ, "UNDERTONE_MODELS": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert ran.returncode == 4
    assert "DependencyError: the weights of 'affect-small' are not installed" in ran.stderr
    assert not (tmp_path / "o" / "corpus").exists()


def test_show_prints_a_study_that_can_be_run_again(tmp_path: Path) -> None:
    plain = undertone("run", "demo", "--show")
    filled = undertone("run", "demo", "--show", "--seed", "9")
    assert plain.stdout.startswith("# The study of 2508.07273")
    assert "seed: 9" in filled.stdout
    (tmp_path / "s.yaml").write_text(filled.stdout)
    assert undertone("run", "s.yaml", "--show", cwd=tmp_path).stdout == filled.stdout


def test_ctrl_c_ends_with_130_and_says_that_nothing_is_lost(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "undertone.cli", "run", "demo", "--out", str(tmp_path / "r"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("r/corpus/read/part-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted; finished parts are kept" in said
    assert "Traceback" not in said


def test_exit_codes_are_those_of_the_manual() -> None:
    codes = {name: one.exit_code for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)}
    manual = dict(re.findall(r"[├└ │─]*(\w+) +(\d)\b", errors.__doc__ or ""))
    assert {name: str(code) for name, code in codes.items()} == manual


def test_doctor_names_what_is_missing_and_how_to_get_it() -> None:
    shown = undertone("doctor")
    assert shown.returncode == 0
    assert "labellers" in shown.stdout
    for line in shown.stdout.splitlines():
        if line.startswith("  missing"):
            assert re.search(r"pip install|apt-get install|affect_small|UNDERTONE_MODELS", line), line
