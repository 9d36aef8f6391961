# Two commands to begin with: `make demo` and `make test`. The rest is for those who work on Holdfast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2

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
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 36 -m "not whole and not combination" tests

check: setup
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# Every kill point of every operation; of the journal writes at which power is lost or a disk is full, every fifth.
faults: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 1 --every-power 5 -m "not whole" tests/faults

# All of them.
faults-all: setup
	$(BIN)/python -m pytest --numprocesses $(JOBS) --every 1 tests/faults

bench: setup
	$(BIN)/python -m tests.bench.bench

docs: setup
	$(BIN)/python -m tests.docs.generate

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
