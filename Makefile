# Two commands for a new machine: `make quickstart`, `make test`. `make help` lists the others.
#
# PYTHON=...          interpreter of .venv        (first found: 3.11, which the pins were taken on)
# PYTHON312=...       interpreter of .venv-latest
# TORCH_FLAGS=...     pip options for torch alone, such as
#                     --extra-index-url=https://download.pytorch.org/whl/cpu for a build without CUDA
# MARKERS=...         tests to run; `MARKERS=` runs the slow ones too
# PYTEST_FLAGS=...    passed on to pytest, such as -k entmax
# WORKERS=...         processes that share the tests (auto: one per CPU, at most four)
# SPEED_FLAGS=...     passed on to benchmarks/speed.py, such as --parts network
# MODELS_FLAGS=...    passed on by make models, such as --check
# BENCH_FLAGS=...     passed on to benchmarks/accuracy.py (--out build/benchmarks: measure anew)
# MUTATE_FLAGS=...    passed on by make mutate, such as --most 10 csr

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
LATEST := .venv-latest
SPEED := .venv-speed
CELLTYPIST := .venv-celltypist
RELEASE := .venv-release
BIN := $(VENV)/bin
# Only errors: progress bars and notes on mirrors bury the line that matters in a log.
PIP_INSTALL := -m pip install -qq --disable-pip-version-check
NEW_PIP := --upgrade 'pip>=25.1' # knows dependency groups
PINNED := $(BIN)/python $(PIP_INSTALL) -c constraints.txt
MARKERS ?= not slow
PYTEST_FLAGS ?=
WORKERS ?= auto
# One thread for each worker: threads of several programs that wait for each other cost more than
# they give.
PYTEST = OMP_NUM_THREADS=1 $(1)/python -m pytest -m "$(MARKERS)" -n $(WORKERS) --maxprocesses=4 \
	$(PYTEST_FLAGS)
TORCH_FLAGS ?=
SPEED_FLAGS ?=
MODELS_FLAGS ?=
BENCH_FLAGS ?= --out build/benchmarks
MUTATE_FLAGS ?=

# $(call first_working,CANDIDATES,TEST): full path of the first candidate that starts and passes.
# Asking `command -v` is not enough: a pyenv shim is on PATH and refuses to run, and Debian splits
# ensurepip, without which there is no pip in a new environment, off its Python.
first_working = $(shell for python in $(1); do \
	"$$python" -c 'import ensurepip, sys; assert $(2); print(sys.executable)' 2>/dev/null && break; \
	done)
PYENV_VERSIONS := $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions

PYTHON_SOURCE := $(origin PYTHON)
PYTHON ?= $(call first_working,python3.11 python3.12 python3.13 python3 \
	$(PYENV_VERSIONS)/3.1[1-3]*/bin/python,sys.version_info >= (3, 11))
PYTHON312 ?= $(call first_working,python3.12 $(PYENV_VERSIONS)/3.12*/bin/python,\
	sys.version_info[:2] == (3, 12))

.PHONY: help setup quickstart test test-latest coverage mutate lint docs bench bench-speed models dist dist-test \
	clean which-python312

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo "and each takes these variables:"
	@sed -nE '3,12s/^#/ /p' $(firstword $(MAKEFILE_LIST))

# ---------------------------------------------------------------- the environment

setup: $(VENV)/.done-setup ## .venv with the package, pinned by constraints.txt
ifneq ($(PYTHON_SOURCE),undefined)
	@version='import sys; print(*sys.version_info[:2], sep=".")'; \
	asked=$$("$(PYTHON)" -c "$$version"); has=$$($(BIN)/python -c "$$version"); \
	[ "$$asked" = "$$has" ] || { \
		echo "$(VENV) holds Python $$has, PYTHON asks for $$asked: run 'make clean' first." >&2; \
		exit 1; }
endif

# pip comes last into a new environment, so its presence says that the environment is whole.
$(BIN)/pip:
	@[ -n "$(PYTHON)" ] || { \
		echo "No Python >= 3.11 with ensurepip found: install one, or name it: make PYTHON=..." >&2; \
		exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)

# torch goes first and alone: TORCH_FLAGS then picks its build without touching other packages.
$(VENV)/.done-setup: pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV): some minutes the first time, nothing to see meanwhile."
	$(BIN)/python $(PIP_INSTALL) $(NEW_PIP)
	$(PINNED) $(TORCH_FLAGS) torch
	$(PINNED) -e .
	@touch $@

# One stamp for each dependency group, named after it.
$(VENV)/.done-%: $(VENV)/.done-setup
	$(PINNED) -e . --group $*
	@touch $@

# cell-annotation-schema pins old versions of what it imports; tests read its JSON schema only.
CAP_SCHEMA := --no-deps cell-annotation-schema==1.1.0

$(VENV)/.done-test: $(VENV)/.done-setup
	$(PINNED) -e . --group test
	$(BIN)/python $(PIP_INSTALL) $(CAP_SCHEMA)
	@touch $@

# ---------------------------------------------------------------- what people run

quickstart: setup $(VENV)/.done-tutorials ## train, map and annotate bundled data; writes quickstart/
	$(BIN)/python tutorials/quickstart.py

test: setup $(VENV)/.done-test ## the suite on the pinned versions
	$(call PYTEST,$(BIN))

# No stamp: the newest versions are what this is about, so pip looks for them at each run.
test-latest: ## the suite on Python 3.12 and the newest versions of everything
	@[ -n "$(PYTHON312)" ] || { \
		echo "##### NO PYTHON 3.12 FOUND: nothing ran on the newest scvi-tools. #####" >&2; \
		echo "##### Install it, or name it: make test-latest PYTHON312=...      #####" >&2; \
		exit 1; }
	@[ -x $(LATEST)/bin/pip ] || "$(PYTHON312)" -m venv --clear $(LATEST)
	@$(LATEST)/bin/python $(PIP_INSTALL) $(NEW_PIP)
	@echo "Installing into $(LATEST): some minutes the first time, nothing to see meanwhile."
	$(LATEST)/bin/python $(PIP_INSTALL) --upgrade $(TORCH_FLAGS) torch
	$(LATEST)/bin/python $(PIP_INSTALL) --upgrade --upgrade-strategy eager 'scvi-tools>=1.5' -e . --group test
	$(LATEST)/bin/python $(PIP_INSTALL) $(CAP_SCHEMA)
	$(call PYTEST,$(LATEST)/bin)

coverage: setup $(VENV)/.done-test $(VENV)/.done-coverage ## the lines that the suite runs, per package
	$(call PYTEST,$(BIN)) --cov=scvi_sctab --cov-report=json:build/coverage.json
	$(BIN)/python tests/coverage_by_layer.py build/coverage.json

mutate: setup $(VENV)/.done-test ## changes of the code that the tests do not notice; MUTATE_FLAGS="--most 10 csr"
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations/mutate.py $(MUTATE_FLAGS)

lint: setup $(VENV)/.done-lint ## style, imports and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

# Sphinx executes notebooks one after another, also with -j, as neighbours are read by one process.
# Executed side by side, a thread each, they are in the cache that the build reads; one that fails is
# not, so that the build executes it again and stops.
JCACHE := OMP_NUM_THREADS=1 JUPYTERCACHE=docs/_build/.jupyter_cache $(BIN)/jcache

docs: setup $(VENV)/.done-doc $(VENV)/.done-tutorials ## the pages, into docs/_build; a warning is an error
	@mkdir -p docs/_build
	$(JCACHE) notebook add -r myst_nb_md docs/tutorials/*.md <<< y >/dev/null
	$(JCACHE) project execute -e local-parallel -t 1800 >/dev/null
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build
	@echo "Open docs/_build/index.html"

# CellTypist trains with scikit-learn < 1.8 only, so it has an environment of its own.
$(CELLTYPIST)/.done-celltypist: | $(BIN)/pip
	"$(PYTHON)" -m venv --clear $(CELLTYPIST)
	$(CELLTYPIST)/bin/python $(PIP_INSTALL) celltypist==1.7.1 'scikit-learn<1.8'
	@touch $@

bench: setup $(VENV)/.done-benchmark $(CELLTYPIST)/.done-celltypist ## the table of the README, measured anew (hours)
	$(BIN)/python benchmarks/accuracy.py $(BENCH_FLAGS)

# One thread, so that sums have one order: a model is the same bit for bit on one machine.
models: setup ## build the ready-made models and their cards again; MODELS_FLAGS=--check compares
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m scvi_sctab.models._build $(MODELS_FLAGS)

# CellTypist trains with scikit-learn < 1.8 only, so the pin of scikit-learn is left out.
# pytorch-tabnet wants nothing that is not there.
$(SPEED)/.done-speed: pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { \
		echo "No Python >= 3.11 with ensurepip found: install one, or name it: make PYTHON=..." >&2; \
		exit 1; }
	@[ -x $(SPEED)/bin/pip ] || "$(PYTHON)" -m venv --clear $(SPEED)
	@echo "Installing into $(SPEED): some minutes the first time, nothing to see meanwhile."
	grep -v '^scikit-learn==' constraints.txt > $(SPEED)/constraints.txt
	$(SPEED)/bin/python $(PIP_INSTALL) -c $(SPEED)/constraints.txt $(TORCH_FLAGS) torch
	$(SPEED)/bin/python $(PIP_INSTALL) -c $(SPEED)/constraints.txt -e . \
		'scikit-learn<1.8' celltypist==1.7.1 scanpy matplotlib
	$(SPEED)/bin/python $(PIP_INSTALL) --no-deps pytorch-tabnet==4.0
	@touch $@

bench-speed: $(SPEED)/.done-speed ## time and memory beside the peers, as tables; SPEED_FLAGS=--quick tries it
	$(SPEED)/bin/python benchmarks/speed.py $(SPEED_FLAGS)

# Without the package and torch, which a wheel of pure Python needs no more than a release does.
$(RELEASE)/.done-release: pyproject.toml
	"$(PYTHON)" -m venv --clear $(RELEASE)
	$(RELEASE)/bin/python $(PIP_INSTALL) $(NEW_PIP)
	$(RELEASE)/bin/python $(PIP_INSTALL) --group release
	@touch $@

dist: $(RELEASE)/.done-release ## wheel and sdist into dist/, checked
	rm -rf dist
	$(RELEASE)/bin/python -m build --outdir dist .
	$(RELEASE)/bin/python -m twine check --strict dist/*

# The wheel goes into an environment without anything else, and the tests are those of the sdist; they
# import the wheel, since `src` is on no path.
dist-test: dist ## annotate by the wheel alone, then run the fast tests from the sdist
	rm -rf build/dist-test && mkdir -p build/dist-test
	"$(PYTHON)" -m venv build/dist-test/env
	build/dist-test/env/bin/python $(PIP_INSTALL) $(NEW_PIP)
	build/dist-test/env/bin/python $(PIP_INSTALL) -c constraints.txt $(TORCH_FLAGS) torch
	build/dist-test/env/bin/python $(PIP_INSTALL) -c constraints.txt dist/*.whl
	tar -xzf dist/*.tar.gz -C build/dist-test --strip-components=1
	cd build/dist-test && env/bin/scvi-sctab annotate -m pbmc -o out \
		src/scvi_sctab/datasets/pbmc3k_labelled.h5ad
	build/dist-test/env/bin/python $(PIP_INSTALL) -c constraints.txt --group test
	cd build/dist-test && env/bin/python -m pytest -m "$(MARKERS)" -n $(WORKERS) --maxprocesses=4 \
		$(PYTEST_FLAGS) tests

clean: ## remove the environments and all that the commands above wrote
	rm -rf $(VENV) $(LATEST) $(SPEED) $(CELLTYPIST) $(RELEASE) docs/_build docs/generated quickstart build dist lightning_logs
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find src tests tutorials benchmarks docs -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# What test-latest would run on; empty where there is none.
which-python312:
	@echo "$(PYTHON312)"
