# Every target works on a machine with Python 3.11 or later and make: the first one to run sets up .venv.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# The benchmarks that compare with other libraries have an environment of their own, which those do not disturb.
PEERS := .venv-peers/bin
PEERS_INSTALLED := .venv-peers/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
PIP := $(BIN)/python $(PIP_INSTALL)
PEERS_PIP := $(PEERS)/python $(PIP_INSTALL)
# In this order; those of margins alone, then those against other libraries.
BENCHMARKS := limits import_time dense_losses pair_sums soft_topk spherical_head trainer compare_overhead
PEER_BENCHMARKS := many_classes auc_pairs metric_learning in_batch
# The tests run in two processes, so each of them computes with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint mutants studies bench bench-peers docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

studies: $(INSTALLED) ## put the claims of methods to the test: those whose code changed, or ONLY=NAME
	@$(BIN)/python studies/run.py --jobs 2 $(ONLY)

bench: $(INSTALLED) $(PEERS_INSTALLED) ## measure the claims on speed and memory; adds rows to benchmarks/results.csv
	@broken=; \
	for name in $(BENCHMARKS); do $(BIN)/python benchmarks/$$name.py || broken="$$broken $$name"; done; \
	for name in $(PEER_BENCHMARKS); do $(PEERS)/python benchmarks/$$name.py || broken="$$broken $$name"; done; \
	test -z "$$broken" || { echo "A limit is broken in:$$broken"; exit 1; }

bench-peers: $(PEERS_INSTALLED) ## the part of them that compares with other libraries
	@broken=; \
	for name in $(PEER_BENCHMARKS); do $(PEERS)/python benchmarks/$$name.py || broken="$$broken $$name"; done; \
	test -z "$$broken" || { echo "A limit is broken in:$$broken"; exit 1; }

docs: $(INSTALLED) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

clean: ## remove .venv, caches and builds; runs/ stays
	@rm -rf .venv .venv-peers build dist site .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find src tests benchmarks studies tools -name __pycache__ -type d -prune -exec rm -rf {} +

# hatchling first, so that the build of margins itself uses the pinned one.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "margins needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "Setting up .venv (torch is the large download, once) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) hatchling torch
	@$(PIP) --no-build-isolation -e '.[tool,text,onnx,loggers,ray,docs,dev]'
	@touch $@

# libauc asks for much that its losses do not import, so peers come without what they ask for: the extras bring it.
$(PEERS_INSTALLED): pyproject.toml constraints.txt benchmarks/peers.txt benchmarks/peers-cuda.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "margins needs Python 3.11 or later: make PYTHON=python3.11")'
	@echo "Setting up .venv-peers ..."
	@$(PYTHON) -m venv .venv-peers
	@$(PEERS_PIP) hatchling torch
	@$(PEERS_PIP) --no-build-isolation -e '.[tool,text]'
	@$(PEERS_PIP) --no-deps -r benchmarks/peers.txt
	@if $(PEERS)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; \
		then $(PEERS_PIP) --no-deps -r benchmarks/peers-cuda.txt; \
		else echo "No CUDA: Liger kernel and cut cross-entropy are left out"; fi
	@touch $@
