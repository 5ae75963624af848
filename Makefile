# `make book` builds the book, `make test` runs the tests; both set up .venv first. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
PROFILE ?= drawn
SEEDS ?= 5
UV_VERSION := 0.13.9

VENV := .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
READY := $(VENV)/.ready
BENCH := _build/bench-packages

# Victims, transfer sets and drawn images of everything below live here; `make clean` takes them away.
export EXTRACTLIB_CACHE ?= $(CURDIR)/_build/cache
# A backend named here would reach the notebooks' kernels and silently remove their figures.
unexport MPLBACKEND

.PHONY: help book test test-slow check-pages lab results weights bench bench-gpu lint lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: $(READY) ## execute the chapters (PROFILE=drawn) and build _build/html
	@$(RUN) book/build.py --profile $(PROFILE)

test: $(READY) ## run the tests
	@$(RUN) -m pytest -n 2 -m "not slow"

test-slow: $(READY) ## run the tests that take minutes
	@$(RUN) -m pytest -m slow

check-pages: $(READY) ## check the built pages; run `make book` first
	@$(RUN) -m pytest tests/pages

lab: $(READY) ## open the chapters in JupyterLab
	@$(RUN) -m jupyter lab book

results: $(READY) ## compute the tables again (PROFILE=drawn SEEDS=5) into book/results
	@$(RUN) -m extractlib results --profile $(PROFILE) --seeds $(SEEDS)

weights: $(READY) ## pre-train the backbones again (PROFILE=drawn: those that ship)
	@$(RUN) -m extractlib weights --profile $(PROFILE)

bench: $(READY) $(BENCH)/.ready ## print the speed ratios
	@PYTHONPATH=$(BENCH) $(RUN) -m benchmarks

bench-gpu: $(READY) ## print what a GPU trains and answers in a second
	@$(RUN) -m benchmarks.gpu

lint: $(READY) ## check the code's form
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

lock: $(READY) ## pin requirements.txt anew from requirements.in
	@$(UV) pip compile requirements.in --universal --python-version 3.11 --no-header --no-annotate --no-emit-package extractlib \
		--no-emit-index-url --output-file $(VENV)/lock.txt --upgrade --quiet
	@{ head -1 requirements.txt; grep -vE '^ *#' $(VENV)/lock.txt; } > $(VENV)/requirements.txt
	@mv $(VENV)/requirements.txt requirements.txt

clean: ## remove everything built, cached victims included (.venv stays)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed and " \
		+ sys.executable + " is " + sys.version.split()[0] + ": name another one, as in make PYTHON=python3.12")'
	@echo "Setting up $(VENV): a few minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(UV) pip install --python $(RUN) --requirement requirements.txt
	@$(UV) pip install --quiet --python $(RUN) --no-deps --editable .
	@$(RUN) -m ipykernel install --sys-prefix --name python3 --display-name "Python 3" > /dev/null
	@touch $@

$(BENCH)/.ready: benchmarks/requirements.txt
	@$(UV) pip install --quiet --no-deps --python $(RUN) --target $(BENCH) --requirement $<
	@touch $@
