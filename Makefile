# Two commands to begin with: `make demo` and `make test`. The rest is for those who work on Holdfast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than the cores of a small machine: tests wait as often as they work.
JOBS ?= 3

# Tests start thousands of processes of the checkout; without its bytecode each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo test check faults faults-all bench docs test-setup clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: setup
	$(BIN)/holdfast demo

# Programs that tests use beside Python and git; asked for, or on a machine for tests (CI=true).
test-setup:
	./tests/install-programs

ifeq ($(CI),true)
test faults faults-all: test-setup
endif

test: setup check
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 48 -m "not whole and not later" tests

check: setup
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every kill point of every operation on the embedded stack; with a database server every sixth of its driver's steps, in
# containers every 16th; of the journal writes at which power is lost or a disk is full, every 24th. And what
# `make test` leaves for it.
faults: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 1 --every-server 6 --every-container 16 --every-power 24 -m "(faults or later) and not whole" tests

# All of them.
faults-all: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 1 -m "faults or later" tests

bench: setup
	$(BIN)/python -m tests.bench.bench

docs: setup
	$(BIN)/python -m tests.docs.generate

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
