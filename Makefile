# Two commands do everything from a clean clone: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := runs/demo
DATA ?= ../shared/data
# Tests run on as many processes as there are cores; each process keeps to one thread.
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test test-all lint setup affect-small epitome-small bench bench-affect clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

# The environment: pinned by constraints.txt; torch first, by its exact version, since any other pulls gigabytes of CUDA.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "undertone needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@# Their wheels name torchaudio (no CPU build), numba or webrtcvad, none of which is used here.
	$(BIN)/python -m pip install --quiet --no-deps $$(grep -E '^(funasr|librosa|resemblyzer|silero-vad)==' constraints.txt)
	touch $@

setup: $(VENV)/.ready  ## the environment alone

demo: setup  ## the main job on the embedded demonstration corpus; ends by printing where the report is
	$(BIN)/undertone run demo --out $(RUN)

lint: setup
	$(BIN)/ruff check src tests recipes benchmarks
	$(BIN)/ruff format --check src tests recipes benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

test: setup lint  ## lint, types, import rules, all tests but the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m 'not slow'

test-all: setup lint  ## all tests, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

affect-small: setup  ## train the small labeller again (needs ../shared/data)
	$(BIN)/python recipes/affect_small --data $(DATA) --out models/affect-small

epitome-small: setup  ## train the empathy scorer again (needs ../shared/data)
	$(BIN)/python recipes/epitome --data $(DATA) --out models/epitome-small

bench: setup  ## measure; never gates
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[bench]'
	@for name in stages label condense train statistics; do echo "== $$name"; $(BIN)/python benchmarks/bench_$$name.py; done
	@for name in words speakers; do echo "== $$name"; $(BIN)/python benchmarks/bench_$$name.py $(DATA); done

bench-affect: setup  ## affect-small against openSMILE, seven trainings (needs ../shared/data; half an hour)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[bench]'
	$(BIN)/python benchmarks/bench_affect.py --out models/affect-small/benchmark --workers 2

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
