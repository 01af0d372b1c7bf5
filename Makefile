# `make lab` brings up a five-host cluster on this machine; `make test` runs the tests. Both install what is missing.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: build
build: $(VENV)/.ready
	@$(PY) proto/generate.py

$(VENV)/.ready: pyproject.toml setup.py requirements.lock
	@deploy/install-prerequisites.sh
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PY) proto/generate.py
	@mkdir -p build/tree/pyswarm && for room in proto manager worker agent_runtime deploy; do ln -sfn ../../../$$room build/tree/pyswarm/$$room; done
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
