# Every target works on a machine with Python 3.11 or later and make: the first one to run sets up .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The tests run in two processes, so each of them computes with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint mutants bench docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## compare training objectives on handwritten digits and write a report
	@$(BIN)/margins demo

test: $(INSTALLED) ## the tests and the examples in docstrings, without the long ones
	@$(PYTEST) -m "not slow"

test-all: $(INSTALLED) ## all tests
	@$(PYTEST)

lint: $(INSTALLED) ## style, formatting, types and the order of the floors
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo

mutants: $(INSTALLED) ## break the code on purpose, one place at a time: the tests must see it
	@$(BIN)/python tools/mutants.py

bench: $(INSTALLED) ## measure the claims on speed and memory; adds rows to benchmarks/results.csv
	@$(BIN)/python benchmarks/import_time.py
	@$(BIN)/python benchmarks/dense_losses.py
	@$(BIN)/python benchmarks/pair_sums.py
	@$(BIN)/python benchmarks/trainer.py

docs: $(INSTALLED) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

clean: ## remove .venv, caches and builds; runs/ stays
	@rm -rf .venv build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

# hatchling first, so that the build of margins itself uses the pinned one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "margins needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "Setting up .venv (torch is the large download, once) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) hatchling torch
	@$(PIP) --no-build-isolation -e '.[tool,text,onnx,loggers,docs,dev]'
	@touch $@
