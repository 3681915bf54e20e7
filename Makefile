# Two commands do all the set-up: `make demo` and `make test`. Both work in a fresh clone with Python, pip and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo_run

.PHONY: demo test env lint clean

# Whole pipeline on simulated recordings, or on your own: make demo DATA=folder [TASK=mental_arithmetic]
demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py --run_dir $(DEMO) $(if $(DATA),--data $(DATA)) $(if $(TASK),--task $(TASK))

# A worker per core, each test file on one of them.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

env: $(VENV)/.installed-dev

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .mypy_cache .ruff_cache
