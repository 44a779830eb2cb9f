# make demo      set up and optimize a trained network that ships with the project
# make test      set up and run the tests
# make test-all  the slow tests too
# make lint      ruff and mypy
# make format    ruff, applied
# make clean     remove build/, .venv/ and caches
#
# VENV=DIR       the virtual environment to use; created if there is none (.venv)
# PYTHON=EXE     the Python 3.11 or newer that creates it (python3)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint format clean

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
METADATA := pyproject.toml constraints.txt Makefile

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("irc needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with PYTHON=...")'
	@echo 'creating $(VENV)'
	@$(PYTHON) -m venv $(VENV)

# setuptools comes from constraints.txt, not from whatever an isolated build would fetch.
$(VENV)/.irc: $(METADATA) | $(BIN)/python
	@echo 'installing irc into $(VENV)'
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/.irc-dev: $(METADATA) | $(BIN)/python
	@echo 'installing irc and its tests into $(VENV)'
	@$(PIP) setuptools
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@ $(VENV)/.irc

demo: $(VENV)/.irc
	@mkdir -p $(BUILD)/demo
	$(BIN)/irc optimize examples/digits/digits.onnx --data examples/digits/calib.npz -o $(BUILD)/demo/digits.irc.onnx

test: $(VENV)/.irc-dev
	$(BIN)/python -m pytest -q

test-all: $(VENV)/.irc-dev
	$(BIN)/python -m pytest -q -m 'slow or not slow'

# Type checkers do not follow an editable install whose packages lie elsewhere (passes/ is irc.passes), so mypy sees a
# folder of links with the installed layout.
lint: $(VENV)/.irc-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@rm -rf $(BUILD)/types && mkdir -p $(BUILD)/types/irc
	@ln -s $(CURDIR)/irc/* $(CURDIR)/passes $(CURDIR)/backends $(BUILD)/types/irc/
	cd $(BUILD)/types && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p irc

format: $(VENV)/.irc-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(BUILD) .venv dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
