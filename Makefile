# `make book` builds the book, `make test` runs the tests; both set up .venv first. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
SCALE ?= drawn
RESULTS ?= _build/results
ifeq "$(origin PROFILE)" "command line"
$(warning PROFILE is now called SCALE: make SCALE=$(PROFILE))
override SCALE := $(PROFILE)
endif
UV_VERSION := 0.13.9
REPO2DOCKER_VERSION := 2026.4.0

VENV := .venv
RUN := $(VENV)/bin/python
UV := $(VENV)/bin/uv
READY := $(VENV)/.ready
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
BENCH := _build/bench-packages
NBGRADER := _build/nbgrader-packages
COURSES = PATH="$(CURDIR)/$(NBGRADER)/bin:$$PATH" PYTHONPATH=$(CURDIR)/$(NBGRADER) $(RUN) -m pytest -n 2 --dist loadgroup tests/courses

# Victims, transfer sets and drawn images of everything below live here; `make clean` takes them away.
export EXTRACTLIB_CACHE ?= $(CURDIR)/_build/cache
# A backend named here would reach the notebooks' kernels and silently remove their figures.
unexport MPLBACKEND
# A process keeps the memory that tensors leave, up to 1 GiB. To get it from the system again, cleared, at each step took
# two fifths of the CPU seconds of training on photographs. Only GNU's C library reads these.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
# Without its bytecode on the disk, each of the many processes would compile torch anew, 5 seconds a time.
unexport PYTHONDONTWRITEBYTECODE

# All that must hold before a change goes in, in this order: the one list of checks.
CHECKS := lint binder test book pdf check-pages check-courses verify sizes

.PHONY: help check $(CHECKS) smoke publication release system test-slow check-bare links link-issue lab launch assignment slides results canaries \
	verify-all weights coverage mutants bench bench-gpu readme lock newest clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check: $(READY) ## run every check that a change must pass (SCALE=drawn)
	@for step in $(CHECKS); do echo "== make $$step"; $(MAKE) --no-print-directory $$step; done

book: $(READY) ## execute the chapters (SCALE=drawn) and build _build/html
	@$(RUN) -m extractbook build --scale $(SCALE)

test: $(READY) ## run the tests
	@$(RUN) -m pytest -n 2 -m "not slow and not book" --durations=20

smoke: $(READY) ## execute each chapter at scale smoke
	@$(RUN) -m pytest -n 2 -m book --durations=20

test-slow: $(READY) $(NBGRADER)/.ready ## run the tests that take minutes
	@$(RUN) -m pytest -m slow
	@$(COURSES) -m slow

pdf: $(READY) ## print the built pages as one PDF; run `make book` first, needs chromium
	@$(RUN) -m extractbook pdf

check-pages: $(READY) ## check the built pages; run `make book` and `make pdf` first, needs chromium
	@$(RUN) -m pytest -n 2 tests/pages

publication: $(READY) slides ## put notebooks, slides and checksums beside the built pages
	@$(RUN) -m zipfile --create _build/html/notebooks.zip _build/source/book/*.ipynb book/launch
	@cd _build/html && find . -type f ! -name SHA256SUMS -print0 | sort -z | xargs -0 sha256sum > SHA256SUMS

binder: $(READY) ## check that Binder understands binder/; without Docker nothing is built
	@$(UV) tool run --quiet --from jupyter-repo2docker==$(REPO2DOCKER_VERSION) \
		jupyter-repo2docker --no-build --debug . > /dev/null

TAG ?= $(GITHUB_REF_NAME)
release: $(READY) ## build the package and attach it to the release of a tag (TAG=v0.2.0); needs GitHub's gh
	@rm -rf dist && $(UV) build --quiet && gh release create "$(TAG)" --verify-tag --generate-notes dist/*

system: ## install with apt-get what the checks need besides Python
	@$(SUDO) apt-get update --quiet && $(SUDO) apt-get install --quiet --yes --no-install-recommends \
		chromium fonts-dejavu-core bubblewrap postgresql
	@# Ubuntu 24.04 forbids the sandbox's user namespaces unless it is told otherwise.
	@$(SUDO) sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0 2> /dev/null || true

links: $(READY) ## try every external link of the built book
	@$(RUN) -m jupyter_book.cli.main build _build/source --path-output _build/links --builder linkcheck

link-issue: ## open an issue about dead links; needs GitHub's gh
	@gh issue create --title "Dead links" --body-file _build/links/_build/linkcheck/output.txt

lab: $(READY) ## open the chapters in JupyterLab, as root too
	@$(RUN) -m jupyter lab $$([ $$(id -u) != 0 ] || echo --allow-root) book/launch

launch: $(READY) ## regenerate book/launch: what Colab, Binder and others open, and the solutions
	@$(RUN) -m extractbook launch

slides: $(READY) ## make a slide deck for each chapter; run `make book` first
	@$(RUN) -m extractbook slides

assignment: $(READY) ## make the nbgrader source of a chapter's exercises (CHAPTER=5 COURSE=autumn)
	@$(RUN) -m extractbook assignment --chapter "$(CHAPTER)" --course "$(COURSE)"

check-bare: $(READY) ## run a first cell with only Colab's packages, the oldest and the newest; takes minutes
	@$(RUN) -m pytest tests/test_publication.py -m slow --durations=0

check-courses: $(READY) $(NBGRADER)/.ready ## have nbgrader hand out and grade the assignments; needs bubblewrap
	@$(COURSES) -m "not slow" --durations=20

coverage: $(READY) ## run the tests and print what share of the library's lines they run; it must be at least 95%
	@rm -rf _build/coverage && mkdir -p _build/coverage
	@$(RUN) -m coverage run -m pytest -q -n 2 -m "not slow and not book" --junitxml=_build/coverage/tests.xml
	@$(RUN) -m coverage combine --quiet && $(RUN) -m coverage report --skip-covered --fail-under=95

mutants: $(READY) ## change the code in 200 places and check whether a test fails (SEED=0); run `make coverage` first
	@$(RUN) -m benchmarks.mutants --seed $(or $(SEED),0)

results: $(READY) ## compute all rows of a scale again (SCALE=drawn RESULTS=_build/results)
	@$(RUN) -m extractbook results --scale $(SCALE) --results $(RESULTS)

canaries: $(READY) ## write the values of canaries whose version was bumped
	@$(RUN) tests/canaries.py --record

verify: $(READY) ## recompute committed cells of up to four kinds (RECORD=--record: note the outcome)
	@$(RUN) -m extractbook verify $(RECORD)

verify-all: $(READY) ## recompute a committed cell of every kind
	@$(RUN) -m extractbook verify --all $(RECORD)

weights: $(READY) ## pre-train the backbones again (SCALE=drawn: those that ship)
	@$(RUN) -m extractbook weights --scale $(SCALE)

bench: $(READY) $(BENCH)/.ready ## print the speed ratios
	@PYTHONPATH=$(BENCH) $(RUN) -m benchmarks && $(RUN) -m benchmarks.wire

readme: $(READY) ## run the README's ten lines and write their output into it
	@$(RUN) -m benchmarks.readme

bench-gpu: $(READY) ## print how many images a GPU trains on and answers per second
	@$(RUN) -m benchmarks.gpu

lint: $(READY) ## check the code's style and types, and the spelling of code and text
	@$(RUN) -m ruff check . && $(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(RUN) -m codespell_lib

chapters: $(READY) ## print counts of what each chapter of the book shows
	@$(RUN) -m benchmarks.chapters

sizes: $(READY) ## print how many lines of code each part has
	@$(RUN) -m benchmarks.sizes

lock: $(READY) ## pin requirements.txt again from requirements.in
	@$(UV) pip compile requirements.in --universal --python-version 3.11 --no-header --no-annotate --no-emit-package extractlib \
		--no-emit-index-url --output-file $(VENV)/lock.txt --upgrade --quiet
	@{ head -1 requirements.txt; grep -vE '^ *#' $(VENV)/lock.txt; } > $(VENV)/requirements.txt
	@mv $(VENV)/requirements.txt requirements.txt

newest: $(READY) ## try the newest versions of all dependencies in .venv, against the lock
	@$(UV) pip install --quiet --python $(RUN) --upgrade --editable ".[book,test,pages]"

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

$(NBGRADER)/.ready: tests/courses/requirements.txt
	@$(UV) pip install --quiet --no-deps --python $(RUN) --target $(NBGRADER) --requirement $<
	@touch $@

$(BENCH)/.ready: benchmarks/requirements.txt
	@$(UV) pip install --quiet --no-deps --python $(RUN) --target $(BENCH) --requirement $<
	@touch $@
