# The commands of this project:
#   make up       virtual environment, install, embedded servers, converge ENV; says what runs and where
#   make dagster  Dagster for this project: its pages, schedules and sensors, until Ctrl-C
#   make test     lint, types, import contracts, then the test suite
#   make nightly  the long runs: fuzz, state machine, the crash suite whole, coverage
#   make down     stop what `make up` started
# PYTHON=... chooses the interpreter. Nothing is reinstalled while pyproject.toml and constraints.txt
# stay as they were.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ENV ?= dev
WORKERS ?= 2
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay together: many of them share a server that is started once.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# A virtual environment holds absolute paths: one that was copied here, or whose Python is gone, is made anew.
ifneq ($(shell $(BIN)/python -m pip --version >/dev/null 2>&1 && cat $(VENV)/.place 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.place
endif

.PHONY: help up down dagster dev test check lint types imports nightly cover bench clean
help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' $(firstword $(MAKEFILE_LIST))

up: $(VENV)/.models
	@$(BIN)/gamma up -e $(ENV)

down: $(VENV)/.core
	@$(BIN)/gamma down -e $(ENV)

dagster: $(VENV)/.dagster $(VENV)/.models
	@$(BIN)/gamma dev

dev: $(VENV)/.dev

test: check
	$(PYTEST)

check: lint types imports

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit -q -r gamma_orch -c pyproject.toml

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

nightly: check
	GAMMA_PROFILE=nightly GAMMA_FUZZ=100000 $(PYTEST) --timeout 7200
	$(MAKE) cover

cover: $(VENV)/.dev
	$(BIN)/coverage erase
	$(PYTEST) --cov --cov-report=term

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks.plan_scale
	$(BIN)/python -m benchmarks.dagster_tick

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The interpreter is tried, not only found: a version manager's shim may be on PATH for a version
# that is not active, and some distributions ship Python without venv.
$(VENV)/.place:
	@for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    echo "python: $$("$$candidate" -c 'import sys; print(sys.executable, sys.version.split()[0])')"; \
	    rm -rf $(VENV) && "$$candidate" -m venv $(VENV) && echo "$(CURDIR)" > $@ && exit 0; \
	    exit 1; \
	  fi; \
	done; \
	echo "Gamma needs Python 3.11 or newer with the venv module; none of these works:" \
	  "$(or $(PYTHON),python3.13 python3.12 python3.11 python3). Set PYTHON=/path/to/python3.11." >&2; \
	exit 1

$(VENV)/.core: $(VENV)/.place pyproject.toml constraints.txt
	@echo "installing gamma into $(VENV)"
	@$(PIP) install -c constraints.txt -e .
	@$(BIN)/python -m compileall -q gamma_orch
	@touch $@

$(VENV)/.models: $(VENV)/.core pyproject.toml constraints.txt
	@echo "installing what builds and serves models into $(VENV): torch and its kin, a gigabyte or two"
	@$(PIP) install -c constraints.txt -e '.[models,monitoring,serving]'
	@touch $@

$(VENV)/.dagster: $(VENV)/.core pyproject.toml constraints.txt
	@echo "installing Dagster into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[dagster]'
	@touch $@

$(VENV)/.dev: $(VENV)/.core pyproject.toml constraints.txt
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@
