# Needs python3 (3.11 or newer, with venv) and make; everything else is installed into .venv.
# An environment is built anew whenever pyproject.toml or its lock changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TYPING_VENV := .venv-trio-typing
TYPING_READY := $(TYPING_VENV)/.ready
PYRIGHT_VENV := .venv-pyright
PYRIGHT_READY := $(PYRIGHT_VENV)/.ready
LOCK_VENV := .venv-lock
SOURCES := blipmq tests tools
PIP_FLAGS := --quiet --disable-pip-version-check

export PIP_REQUIRE_VIRTUALENV := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: .venv
.venv: $(READY)  ## create the environment

$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BlipMQ needs Python 3.11 or newer; say which: make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint requirements.lock --editable '.[dev]'
	touch $@

.PHONY: run
run: $(READY)  ## install and start blipmqd on blipmq.example.toml
	@exec $(BIN)/blipmqd --config blipmq.example.toml

.PHONY: demo
demo: $(READY)  ## a broker, a publisher and two subscribers in this terminal
	@exec $(BIN)/python -m tools.demo

.PHONY: test
test: $(READY)  ## run the tests
	$(BIN)/python -m pytest

.PHONY: check
check: lint types coverage  ## all that CI runs: lint, types, import rules, tests with coverage

.PHONY: lint
lint: $(READY)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(READY)  ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: types
types: $(READY)  ## mypy strict
	$(BIN)/mypy

.PHONY: imports
imports: $(READY)  ## the import rules between packages alone (part of the tests)
	$(BIN)/python -m pytest tests/test_imports.py

.PHONY: coverage
coverage: $(READY)  ## run the tests with branch coverage and its floor
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

SEED ?= 1
RUNS ?= 1000

.PHONY: simulate
simulate: $(READY)  ## the whole broker on simulated disk, network and clock: SEED=7 RUNS=1000
	$(BIN)/python -m tests.simulation --seed $(SEED) --runs $(RUNS) $(SIMULATE_OPTIONS)

CHAOS := crash corrupt-tail corrupt-middle missing-segment permission disk-full io-error \
	fsync-error slow-disk second-daemon clock-jump disconnects slow-consumer flood

.PHONY: chaos $(CHAOS:%=chaos-%)
chaos: $(CHAOS:%=chaos-%)  ## failure drills on real processes; chaos-crash and so on for one

$(CHAOS:%=chaos-%): chaos-%: $(READY)
	$(BIN)/python -m tools.chaos.$(subst -,_,$*) $(CHAOS_OPTIONS)

.PHONY: bench
bench: $(READY)  ## messages a second through one broker, version 1
	$(BIN)/python -m tools.bench.throughput $(BENCH_OPTIONS)

BENCH := confirm backlog amplification recovery fanout idle

.PHONY: bench-durability $(BENCH:%=bench-%)
bench-durability: $(BENCH:%=bench-%)  ## what durability costs; bench-confirm, -backlog and so on for one

$(BENCH:%=bench-%): bench-%: $(READY)
	$(BIN)/python -m tools.bench.$* $(BENCH_OPTIONS)

$(TYPING_READY): pyproject.toml tools/typecheck/requirements.lock
	$(PYTHON) -m venv --clear $(TYPING_VENV)
	$(TYPING_VENV)/bin/python -m pip install $(PIP_FLAGS) --constraint tools/typecheck/requirements.lock --editable . mypy trio-typing[mypy]
	touch $@

.PHONY: typecheck-trio-typing
typecheck-trio-typing: $(TYPING_READY)  ## check a user's program with mypy 1.5 and trio-typing
	$(TYPING_VENV)/bin/python tools/typecheck/check.py

$(PYRIGHT_READY): $(READY)
	$(PYTHON) -m venv --clear $(PYRIGHT_VENV)
	$(PYRIGHT_VENV)/bin/python -m pip install $(PIP_FLAGS) 'pyright[nodejs]==1.1.414'
	touch $@

.PHONY: typecheck-pyright
typecheck-pyright: $(PYRIGHT_READY)  ## check what users import with pyright
	$(PYRIGHT_VENV)/bin/pyright --pythonpath $(BIN)/python blipmq/__init__.py blipmq/errors.py blipmq/client blipmq/testing

.PHONY: lock
lock:  ## resolve the newest versions into the lock files
	$(PYTHON) -m venv --clear $(LOCK_VENV)
	$(LOCK_VENV)/bin/python -m pip install $(PIP_FLAGS) uv
	$(LOCK_VENV)/bin/uv pip compile --quiet --universal --upgrade --no-annotate --extra dev \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml
	$(LOCK_VENV)/bin/uv pip compile --quiet --universal --upgrade --no-annotate \
		--custom-compile-command 'make lock' --output-file tools/typecheck/requirements.lock \
		pyproject.toml tools/typecheck/requirements.in
	rm -rf $(LOCK_VENV)

.PHONY: clean
clean:  ## remove the environments, caches and reports; never a log
	rm -rf $(VENV) $(TYPING_VENV) $(PYRIGHT_VENV) $(LOCK_VENV) build dist *.egg-info htmlcov .coverage .coverage.*
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find blipmq tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
