# Everything happens in a virtual environment of this folder (.venv), made on first use and brought up to date when
# pyproject.toml changes.  README.md spells the same out for pip.
#
#   make demo     install, then train, predict and evaluate on a small brain MRI dataset     ARGS="--device cpu"
#   make test     install, then run the tests, on all cores                                  ARGS="tests/ops -x -n 0"
#   make versions install, then run the tests that touch torch's insides with the oldest and the newest torch
#   make lint     install, then ruff (rules and formatting) and mypy
#   make bench    install, then check and measure the scan on this machine's CPU; three minutes at most
#   make gpu-check  on a machine with a GPU, torch, Triton and pytest: check the CUDA backend, then measure it, in
#                   three phases of three minutes; uses PYTHON as it is, installs nothing    ARGS="--phase values"
#   make clean    delete the environment, the demo's folder and what the tools left behind
#
# PYTHON=python3.12 picks another interpreter, VENV=folder another place for the environment, and
# PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu" saves gigabytes of CUDA on a machine without a GPU.

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
ARGS ?=

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS)

.PHONY: demo test versions lint bench gpu-check clean

demo: $(VENV)/.installed-demo
	$(BIN)/swin-umamba demo --work demo $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile $(ARGS)

versions: $(VENV)/.installed-dev
	$(BIN)/python tests/versions.py oldest $(ARGS)
	$(BIN)/python tests/versions.py newest $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed-demo
	$(BIN)/python -m tests.speed.check --phase cpu $(ARGS)

gpu-check:
	$(PYTHON) -m tests.speed.check $(ARGS)

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache
	find swin_umamba_nnunet tests -name __pycache__ -prune -exec rm -rf {} +

# one stamp per extra of pyproject.toml: demo, test, dev
$(VENV)/.installed-%: pyproject.toml $(VENV)/.made
	$(INSTALL) --editable ".[$*]"
	touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed and $(PYTHON) is %s: name another with make PYTHON=..." % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	touch $@

.PRECIOUS: $(VENV)/.installed-%
