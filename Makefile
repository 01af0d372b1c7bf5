# `make lab` brings up a five-host cluster on this machine; `make test` runs the tests. Both install what is missing.
SHELL := /bin/bash
VENV ?= .venv
PY := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: build
build: $(VENV)/.ready
	@$(PY) proto/generate.py

$(VENV)/.ready: pyproject.toml setup.py requirements.lock agent_runtime/kernel/_executor.c agent_runtime/kernel/_init.c \
  agent_runtime/kernel/_unlocked.c manager/raft/_disk_writer.c
	@deploy/install-prerequisites.sh
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(PY) proto/generate.py
	@mkdir -p build/tree/pyswarm && for room in proto manager worker agent_runtime deploy; do ln -sfn ../../../$$room build/tree/pyswarm/$$room; done
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# --- a lab cluster on this machine: three managers, two workers, a registry, the example stack

MANAGERS ?= 3
WORKERS ?= 2

.PHONY: lab lab-down
lab: build
	@pyswarm lab up --managers $(MANAGERS) --workers $(WORKERS)

lab-down: build
	@pyswarm lab down --if-exists

# --- tests: `make test` is what decides; the others are its parts

.PHONY: test test-quick test-e2e lint
test: build
	@$(PY) -m pytest -q tests

test-quick: build
	@$(PY) -m pytest -q tests -m "not kernel and not e2e"

test-e2e: build
	@$(PY) -m pytest -q tests/e2e

# Faults against real managers, with the histories of their clients judged. `make test` holds a short run of it.
ROUNDS ?= 1000
JOBS ?= 4
.PHONY: nemesis
nemesis: build
	@$(PY) tests/e2e/nemesis.py --rounds $(ROUNDS) --managers $(MANAGERS) --jobs $(JOBS) $(OPTIONS)

# The consensus code on a virtual clock, network and disk: SEEDS runs from SEED on. `make test` holds a hundred.
SEEDS ?= 2000
SEED ?= 0
.PHONY: sim
sim: build
	@$(PY) tests/sim/run.py --seeds $(SEEDS) --first $(SEED) $(OPTIONS)

# Whole clusters on a virtual clock: deaths, blips, leader changes, updates. `make test` holds forty seeds.
.PHONY: sim-cluster
sim-cluster: build
	@$(PY) tests/sim/run_cluster.py --seeds $(SEEDS) --first $(SEED) $(OPTIONS)

# The runtime's daemon killed at each step of a container's life, its spawner at any moment. `make test` holds a few.
.PHONY: kills
kills: build
	@KILL_ROUNDS=$(ROUNDS) $(PY) -m pytest -q -s --timeout 0 tests/agent_runtime/container/test_killed_anywhere.py

# Damaged layer archives, many more than `make test` tries.
EXAMPLES ?= 20000
.PHONY: fuzz
fuzz: build
	@FUZZ_EXAMPLES=$(EXAMPLES) $(PY) -m pytest -q tests/agent_runtime/image/test_extract_fuzz.py

lint: build
	@ruff check .
	@ruff format --check --quiet .
	@mypy
	@lint-imports --no-cache

# --- benchmarks: each prints a table, and as its last line one JSON object of named figures

.PHONY: bench-scheduler
bench-scheduler: build
	@$(PY) tests/bench/scheduler.py $(OPTIONS)

# etcd beside ours: needs the Debian packages etcd-server, golang-go and golang-etcd-server-dev.
.PHONY: bench-consensus
bench-consensus: build
	@$(PY) tests/bench/consensus.py $(OPTIONS)

# Deaths and blips on a lab of six hosts: OPTIONS='--kills 50 --blips 100' for the figures of docs/reference.
.PHONY: bench-failover
bench-failover: build
	@$(PY) tests/bench/failover.py $(OPTIONS)

# Docker Swarm beside ours: installs Debian's docker.io.
.PHONY: bench-convergence
bench-convergence: build
	@$(PY) tests/bench/convergence.py $(OPTIONS)

# Three real managers, simulated agents on the real protocol; OPTIONS='--agents 100 --tasks 3000' for one small size.
.PHONY: bench-scale
bench-scale: build
	@$(PY) tests/bench/scale.py $(OPTIONS)

.PHONY: bench-store
bench-store: build
	@$(PY) tests/bench/store_scale.py $(OPTIONS)

# crun, runc, podman and docker beside ours: installs their Debian packages.
.PHONY: bench-runtime
bench-runtime: build
	@$(PY) tests/bench/runtime.py $(OPTIONS)

.PHONY: lock
lock: build
	@$(PY) -m pip install --quiet pip-tools
	@pip-compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --allow-unsafe --strip-extras -o requirements.lock pyproject.toml

.PHONY: clean
clean:
	rm -rf $(VENV) build dist *.egg-info proto/v1/*_pb2.py proto/v1/*_pb2.pyi proto/v1/*_pb2_grpc.py proto/v1/*_pb2_grpc.pyi
