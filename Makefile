# Everything happens in a virtual environment of this folder (.venv), made on first use and brought up to date when
# pyproject.toml changes.  README.md spells the same out for pip.
#
#   make demo     install, then train, predict and evaluate on a small brain MRI dataset     ARGS="--device cpu"
#   make test     install, then run the tests, on all cores                                  ARGS="tests/ops -x -n 0"
#   make versions install, then run the tests that touch torch's insides with the oldest and the newest torch
#   make with     one of these, with what one names                    PY=3.13 WITH="torch==2.13.0" TESTS=tests/ops
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

# of `make with`: a Python that uv finds or gets, what is installed in its environment, deleted after, beside the package
PY ?= $(PYTHON)
WITH ?= torch
OTHER := $(VENV)-with
# what a new torch has broken so far, and what it could: operators, compilation, export, counting, checkpoints
TESTS ?= tests/ops tests/blocks tests/networks tests/cost/test_cost.py tests/trainers/test_step.py \
	tests/trainers/test_checkpoints.py tests/trainers/test_freeze.py tests/trainers/test_two_processes.py \
	tests/models/test_exporting.py tests/models/test_checkpoints.py tests/pretrained/test_checkpoint.py

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS)

PYTEST = -m pytest -n auto --maxprocesses 8 --dist loadfile
# not pip, which needs a quarter of an hour to find what goes with an old torch
UV = $(BIN)/uv --no-config --quiet

.PHONY: demo test versions with lint bench gpu-check clean

demo: $(VENV)/.installed-demo
	$(BIN)/swin-umamba demo --work demo $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python $(PYTEST) $(ARGS)

# the oldest that pyproject.toml allows, and the newest of everything
versions:
	$(MAKE) with PY=3.10 WITH="torch==2.4.0 nnunetv2==2.8.0 numba==0.60.0"
	$(MAKE) with WITH=torch

# about 6 GB of disk: torch from PyPI brings CUDA; installed first, so that no library takes an older one
with: $(VENV)/.installed-dev
	set -e; trap "rm -rf $(OTHER)" EXIT; rm -rf $(OTHER); \
	$(UV) venv --seed --python $(PY) $(OTHER); \
	$(UV) pip install --python $(OTHER) $(WITH); \
	$(UV) pip install --python $(OTHER) $(WITH) $$($(UV) pip freeze --python $(OTHER) | grep ^torch==) -e ".[test]"; \
	$(UV) pip freeze --python $(OTHER); \
	env -u PYTHONPATH PYTHONDONTWRITEBYTECODE=1 $(OTHER)/bin/python $(PYTEST) -q -p no:cacheprovider $(TESTS) $(ARGS)

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
