# Two commands to begin with: `make demo` and `make test`. The rest is for those who work on Holdfast.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
comma := ,
# One more than the cores of a small machine: tests wait as often as they work.
JOBS ?= 3

.PHONY: setup demo test check faults faults-all submission points bench applications docs screens test-setup clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	@echo "Installing Holdfast and what its tests need into $(VENV); this takes a minute or two."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[test]'
	touch $@

demo: setup
	$(BIN)/holdfast demo

# Programs that tests use beside Python and git; asked for, or on a machine for tests (CI=true).
test-setup:
	./tests/install-programs

ifeq ($(CI),true)
test faults faults-all: test-setup
endif

# How much is proved: `quick`, what a `submission` has to pass, or `everything`; CONTRIBUTING.md has the table.
PROOF ?= quick
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS)

test: setup check
	$(PYTEST) --proof $(PROOF) tests

check: setup
	$(BIN)/ruff check src tests
	$(BIN)/ruff format --check src tests
	$(BIN)/mypy
	$(BIN)/lint-imports

# The fault tests alone, as a submission has to pass them.
faults: setup
	$(PYTEST) --proof submission -m faults tests

# Every point of everything, and every combination and variant.
faults-all: setup
	$(PYTEST) --proof everything -m "faults or combination or variant" tests

# Begins a new submission: the next part of the rotation, and what changes from here on counts as changed.
submission: setup
	$(BIN)/python -m tests.proof.begin

# Writes down how many points the scenarios have, and which steps.
points: setup
	$(BIN)/python -m tests.faults.record $(SCENARIOS)

bench: setup
	$(BIN)/python -m tests.bench.bench

# Applications of others through everything, as root; APPLICATIONS=pocketbase,radicale chooses some.
applications: setup
	$(BIN)/python -m tests.realworld $(subst $(comma), ,$(APPLICATIONS))

docs: setup
	$(BIN)/python -m tests.docs.generate

# Writes down what commands show on terminals and in a pipe.
screens: setup
	$(BIN)/python -m tests.docs.screens

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
