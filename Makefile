# make demo    generate, train, compare: leaves demo/ with a report
# make test    lint, types, layers, documentation, tests
# PYTHON is the interpreter the environment is made from, VENV where it goes. If that interpreter
# already has torch >= 2.11, its build of torch is kept; TORCH=pinned takes that of constraints.txt.
PYTHON ?= python3
VENV ?= .venv
TORCH ?= keep
WORKERS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint docs pytest slow newest format clean install help
.DEFAULT_GOAL := help

help:
	@echo "make demo     the whole path on generated data; leaves demo/ with a report"
	@echo "make test     everything that CI checks"
	@echo "make install  only the environment, in $(VENV)"
	@echo "parts of make test: lint docs pytest; further: slow newest format clean"

demo: $(INSTALLED)
	$(VENV)/bin/cst demo $(ARGS)

test: lint docs pytest

install: $(INSTALLED)

# Nothing is installed again until one of these files changes.
$(INSTALLED): pyproject.toml constraints.txt .ci/environment.py
	$(PYTHON) .ci/environment.py $(VENV) $(TORCH)
	@touch $@

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(INSTALLED)
	$(VENV)/bin/sphinx-build -W -n --keep-going -q -b html docs docs/_build/html
	@echo "documentation: docs/_build/html/index.html"

# Workers with one thread each are faster than one process with many, and do not oversubscribe.
pytest slow newest: export OMP_NUM_THREADS = 1
pytest: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n $(WORKERS) $(ARGS)

slow: $(INSTALLED)
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m slow $(ARGS)

# Both tiers of the interoperability tests on neuraloperator's newest release; the next target that
# needs the environment brings the pinned one back.
newest: $(INSTALLED)
	@rm $(INSTALLED)
	$(VENV)/bin/python -m pip install -qq --upgrade neuraloperator
	$(VENV)/bin/python -m pip list | grep neuraloperator
	$(VENV)/bin/python -m pytest -n $(WORKERS) -m "slow or not slow" tests/test_interop_*.py $(ARGS)

format: $(INSTALLED)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:
	rm -rf $(VENV) build docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache
