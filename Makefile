# make demo: the whole road on text that every machine has; make test: lint, types and tests; make docs: the site.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format docs clean

demo: .venv/installed
	$(BIN)/electra demo --out demo

test: .venv/installed-test lint
	$(BIN)/pytest -n 2 --dist loadfile

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile Dockerfile.cpu

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-docs
	$(BIN)/sphinx-build -E -W --keep-going --nitpicky --quiet -c docs . docs/_build/html
	@echo "the site is docs/_build/html/index.html"

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "electra needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable .
	touch $@

.venv/installed-test: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[test]'
	touch $@ .venv/installed

.venv/installed-docs: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[docs]'
	touch $@ .venv/installed

clean:
	rm -rf .venv docs/_build .mypy_cache .ruff_cache .pytest_cache
