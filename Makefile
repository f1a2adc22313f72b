# Two commands on a fresh machine: `make demo`, `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/tested.txt
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
PYTEST_WORKERS ?= 2
# one thread a test process: the workers share the cores
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.PHONY: demo test coverage check format lint types docs e2e bench clean help

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMPS)/venv:
	$(PYTHON) -c 'import sys; sys.exit("Triptych needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=...") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/core: $(STAMPS)/venv pyproject.toml $(CONSTRAINTS)
	$(PIP) -e .
	touch $@

$(STAMPS)/test: $(STAMPS)/core
	$(PIP) -e '.[test]'
	touch $@

$(STAMPS)/check: $(STAMPS)/test
	$(PIP) -e '.[test,check,docs]'
	touch $@

$(STAMPS)/e2e: $(STAMPS)/test
	$(PIP) -e '.[test,e2e]'
	touch $@

demo: $(STAMPS)/core  ## set everything up, train on the embedded digits, write demo/report.html
	$(BIN)/triptych demo --out demo

test: $(STAMPS)/test  ## set everything up and run the tests
	$(THREADS) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup -q

coverage: $(STAMPS)/test  ## the tests once more, with the share of src that they cover
	rm -f .coverage .coverage.*
	$(THREADS) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) -q --cov=triptych --cov-report=term:skip-covered

check: format lint types docs  ## format, lint, types, docs

format: $(STAMPS)/check
	$(BIN)/ruff format --check .

lint: $(STAMPS)/check
	$(BIN)/ruff check --output-format concise .

types: $(STAMPS)/check
	$(BIN)/pyright

docs: $(STAMPS)/check  ## docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

e2e: $(STAMPS)/e2e  ## the report in a headless browser of the system
	$(BIN)/python -m pytest -q tests/e2e

bench: $(STAMPS)/test  ## training time against the published algorithm in plain NumPy; DATA=folder of MNIST
	$(BIN)/python benchmarks/speed.py --data $(DATA)

clean:  ## remove what the targets made
	rm -rf $(VENV) docs/_build demo .pytest_cache .ruff_cache
