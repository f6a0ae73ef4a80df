# The two commands of README, and what stands behind them. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

FAULTS := $(addprefix tests/test_,checkpoint.py exactly_once.py hostile_files.py hostile_scans.py \
  machine_faults.py secrets.py)

# As many processes of pytest, and files in the order, as tests/conftest.py has it.
AT_ONCE := -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart test test-all test-faults test-gpu lint browser bench lock

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

quickstart: $(INSTALLED)  ## train four networks, export the table and the plot
	@$(BIN)/python -m agent.local sweeps/quickstart.yaml; status=$$?; \
	  $(BIN)/python -m agent.export && exit $$status

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## style, types, and all tests but the slow ones
	$(BIN)/python -m pytest $(AT_ONCE) -m "not slow and not faults"

test-faults: $(INSTALLED)  ## kill, crash, fill, tear and fuzz; prints what was injected and found
	FAULTS=1 $(BIN)/python -m pytest $(FAULTS)

# With what the machine has: PyTorch with CUDA is rarely in our own environment.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

test-gpu:  ## on a machine with a GPU: what only a GPU can show (three minutes)
	$(GPU_PYTHON) -m pytest tests/gpu -o addopts=-ra -W default -p no:cacheprovider

test-all: lint browser  ## everything
	$(BIN)/python -m pytest

# For the test of report.html, which is skipped where there is none.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	    apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null; } || \
	  echo "no chromium, and none could be installed: the browser test will be skipped"

bench: $(INSTALLED)  ## time everything against a plain eager model and the machine's floor
	$(BIN)/python -m benchmarks

lock: ## pin anew what pyproject.toml asks for, in a fresh environment
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet torch==2.13.0
	build/lock/bin/pip install --quiet --editable '.[dev]'
	{ echo "# Made by 'make lock'; torch brings its own CUDA packages where it needs them."; \
	  build/lock/bin/pip freeze --exclude-editable \
	  | grep -ivE '^(nvidia-|triton|cuda-|setuptools|wheel|pip=)' | sed -E 's/(==[^+]*)\+[a-z0-9]+$$/\1/'; \
	} > requirements.lock
	rm -rf build/lock
