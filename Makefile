# fedprune: `make demo` shows it, `make test` proves it. The first call makes .venv; nothing else is installed.

# The first of these that is CPython 3.11 or newer and can make virtual environments.
PYTHON ?= $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
CODE := common server client lab tests protos bench examples docs
# More for the verb: make demo ARGS=--json, make test ARGS=tests/common
ARGS ?=
JOBS ?= auto
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test lint format bench faults fuzz protos docs clean

help:
	@echo "make demo     a federation on this machine: dense, then pruned to a tenth; about a minute"
	@echo "make test     the whole test suite"
	@echo "make lint     ruff and mypy"
	@echo "make bench    the figures we publish, all of them or ARGS=NAME"
	@echo "make faults   kill coordinators at 200 random instants and at every named point, and compare"
	@echo "make fuzz     messages, uploads and frames changed as coverage leads, for SECONDS=600 each"
	@echo "make protos   the wire code from protos/"
	@echo "make docs     the reference pages from the code, and the site in build/site"
	@echo "make clean    remove what was built, .venv too"

demo: $(VENV)/installed
	@$(BIN)/fedprune demo $(ARGS)

test: $(VENV)/developing
	$(BIN)/pytest -n $(JOBS) $(ARGS)

lint: $(VENV)/developing
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

format: $(VENV)/developing
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

bench: $(VENV)/developing
	@for name in $(or $(ARGS),$(filter-out faults mutants cuts fuzz hostile hosts,$(basename $(notdir $(wildcard bench/*.py))))); do \
		echo "== $$name"; $(BIN)/fedprune bench $$name || exit 1; done

# The suite kills fewer: a full run takes long.
faults: $(VENV)/developing
	$(BIN)/python bench/faults.py random --kills $(or $(KILLS),200)
	$(BIN)/python bench/faults.py restarts --kills 100
	$(BIN)/python bench/faults.py points --each 3
	$(BIN)/python bench/faults.py points --each 1 --action enospc
	$(BIN)/python bench/faults.py points --each 1 --action eio
	$(BIN)/python bench/faults.py clients --kills 100
	$(BIN)/python bench/faults.py fencing --trials 100
	$(BIN)/python bench/faults.py links
	$(BIN)/python bench/fuzz.py --cases 200000
	$(BIN)/python bench/hostile.py
	$(BIN)/python bench/mutants.py

fuzz: $(VENV)/developing
	@$(PIP) install -c constraints.txt --group fuzz
	$(BIN)/python tests/attacks/wire/fuzz.py -max_total_time=$(or $(SECONDS),600)
	$(BIN)/python tests/attacks/codec/fuzz.py -max_total_time=$(or $(SECONDS),600)

protos: $(VENV)/developing
	$(BIN)/python protos/generate.py

docs: $(VENV)/developing
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/pictures.py
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# constraints.txt names the torch build; without it pip may fetch gigabytes of GPU libraries.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "fedprune needs CPython 3.11 or newer with venv (Debian: apt install python3-venv)"; exit 1; }
	@echo "installing into $(VENV), once: $$($(PYTHON) --version), torch and a few small packages"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install 'pip>=25.1'
	@$(PIP) install -c constraints.txt -e '.[page]'
	@touch $@

$(VENV)/developing: $(VENV)/installed
	@$(PIP) install -c constraints.txt --group dev
	@touch $@
