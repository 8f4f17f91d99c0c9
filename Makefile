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
check: lint types coverage pure  ## all that CI runs: lint, types, import rules, tests with coverage

.PHONY: pure
pure: $(READY)  ## the tests of what the compiled loops are in, with those in plain Python
	BLIPMQ_PURE=1 $(BIN)/python -m pytest -q tests/protocol tests/broker tests/golden

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

FUZZ := decoding properties session recovery repair config tracing http websocket
FUZZ_READY := $(VENV)/.ready-fuzz
FUZZ_SECONDS ?= 60

$(FUZZ_READY): $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint requirements.lock --editable '.[fuzz]' \
		|| echo 'atheris cannot be installed here: fuzzing goes on without coverage'
	touch $@

.PHONY: fuzz $(FUZZ:%=fuzz-%)
fuzz: $(FUZZ:%=fuzz-%)  ## any input, guided by coverage: FUZZ_SECONDS=60 for each; fuzz-session and so on for one

$(FUZZ:%=fuzz-%): fuzz-%: $(FUZZ_READY)
	$(BIN)/python -m tests.fuzz $* --seconds $(FUZZ_SECONDS) $(FUZZ_OPTIONS)

CHAOS := crash corrupt-tail corrupt-middle missing-segment permission disk-full io-error \
	fsync-error slow-disk second-daemon clock-jump disconnects slow-consumer flood \
	upgrade

.PHONY: chaos $(CHAOS:%=chaos-%)
chaos: $(CHAOS:%=chaos-%)  ## failure drills on real processes; chaos-crash and so on for one

$(CHAOS:%=chaos-%): chaos-%: $(READY)
	$(BIN)/python -m tools.chaos.$(subst -,_,$*) $(CHAOS_OPTIONS)

.PHONY: bench
bench: $(READY)  ## what one broker does, mode by mode, for both kinds of client
	$(BIN)/python -m tools.bench $(or $(BENCH_MODES),all) --client both $(BENCH_OPTIONS)

.PHONY: bench-smoke
bench-smoke: $(READY)  ## every mode of the bench once, small: it counts right (part of the tests)
	$(BIN)/python -m pytest tests/tools tests/daemon/test_bench.py tests/daemon/test_bench_modes.py

.PHONY: bench-idle
bench-idle: $(READY)  ## what idle connections cost
	$(BIN)/python -m tools.bench.idle $(BENCH_OPTIONS)

COMPARE_READY := $(VENV)/.ready-compare

$(COMPARE_READY): $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) --constraint requirements.lock --editable '.[bench]'
	touch $@

.PHONY: bench-compare
bench-compare: $(COMPARE_READY)  ## beside NATS, Redis, Mosquitto and RabbitMQ, those that are installed
	$(BIN)/python -m tools.bench.compare $(BENCH_OPTIONS)

.PHONY: bench-guard
bench-guard: $(READY)  ## this checkout against the last tag, in alternation; fails below 0.9
	$(BIN)/python -m tools.bench.guard $(BENCH_OPTIONS)

DURABILITY := confirm backlog amplification recovery

.PHONY: bench-durability $(DURABILITY:%=bench-%)
bench-durability: $(DURABILITY:%=bench-%)  ## what durability costs; bench-confirm, -backlog and so on for one

$(DURABILITY:%=bench-%): bench-%: $(READY)
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
	$(LOCK_VENV)/bin/uv pip compile --quiet --universal --upgrade --no-annotate --extra dev --extra bench --extra fuzz \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml
	$(LOCK_VENV)/bin/uv pip compile --quiet --universal --upgrade --no-annotate \
		--custom-compile-command 'make lock' --output-file tools/typecheck/requirements.lock \
		pyproject.toml tools/typecheck/requirements.in
	rm -rf $(LOCK_VENV)

.PHONY: clean
clean:  ## remove the environments, caches and reports; never a log
	rm -rf $(VENV) $(TYPING_VENV) $(PYRIGHT_VENV) $(LOCK_VENV) build dist *.egg-info htmlcov bench-results .coverage .coverage.*
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find blipmq tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
