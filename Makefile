# Needs python3 (3.11 or newer) and make; everything else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-arviz1 check format docs lessons clean

## Run the demo; ARGS are passed on, as in: make demo ARGS="--seed 1 --out runs/seed-1"
demo: $(INSTALLED)
	$(BIN)/pyro-vmtl fit digits $(ARGS)

## Run all tests; ARGS are passed on, as in: make test ARGS="-m 'not slow'"
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses=2 --dist=worksteal --durations=5 $(ARGS)

## Run the tests that use ArviZ under ArviZ 1.x, which needs Python 3.12 (PYTHON312=...)
test-arviz1: .venv-arviz1/.installed
	OMP_NUM_THREADS=1 .venv-arviz1/bin/python -m pytest -q --numprocesses=2 --dist=worksteal $(ARGS) \
		$$(grep -rlE --include='test_*.py' 'pyro_vmtl.analysis|arviz|datatree' tests) pyro_vmtl/analysis

## Check lint, format and types
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Fix lint and format where possible
format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## Build the site, docs/_build/html/index.html; it needs no network
docs: $(INSTALLED)
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html

## Run the lessons, and write notebooks and pages of them; ARGS="2 5" for some
lessons: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m lessons $(ARGS)

clean:
	rm -rf .venv .venv-arviz1 build dist *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=python3.12, say.")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv-arviz1/.installed: pyproject.toml constraints.txt .ci/arviz1
	PYTHON312="$(PYTHON312)" .ci/arviz1 .venv-arviz1
	touch $@
