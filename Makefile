# The project's commands. `make run` and `make test` work on a fresh clone that has Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OBS := $(BIN)/obs-pipeline
# Relative, so that no path of a machine ends up in an installed file's name.
export DAGSTER_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help run ui test lint types bench bench-large bench-detection test-slow lock snapshot clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

run: $(VENV)/.installed ## Set up, land the sample, compute every day of it, print what it shows
	@$(OBS) ingest --mapping aider sample_data/aider-analytics.jsonl.gz
	@$(OBS) batch --all

ui: $(VENV)/.installed ## Open Dagster on the same data (http://127.0.0.1:3000)
	@$(OBS) ui

test: $(VENV)/.installed-dev ## Set up and run every test, the linters and the type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: $(VENV)/.installed-dev ## The suites that take minutes: faults, random policy trees
	@$(BIN)/python -m pytest -m slow

bench: $(VENV)/.installed-dev ## 50,000 events end to end, and the hourly aggregation against the bare engine
	@$(BIN)/python -m obs_pipeline_tests.performance.bench

bench-large: $(VENV)/.installed-dev ## 50 million events over 30 days and 2,000 agents (about ten minutes, 8 GB of disk)
	@$(BIN)/python -m obs_pipeline_tests.performance.bench --events 50000000

bench-detection: $(VENV)/.installed-dev ## Recall and false alarms of the detectors on two labelled fleets (20 seeds, some 20 minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.detection_bench

snapshot: $(VENV)/.installed-dev ## Rewrite the committed snapshot of the asset graph
	@$(BIN)/python -m obs_pipeline_tests.defs.graph_snapshot

lock: $(VENV)/.bootstrap ## Resolve the dependencies anew, exact and with hashes
	@$(BIN)/uv pip compile -q --group bootstrap --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements-bootstrap.lock
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements.lock
	@$(BIN)/uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -c requirements.lock -o requirements-dev.lock

clean: ## Remove the environment and all state
	rm -rf $(VENV) .obs

$(VENV)/.bootstrap: requirements-bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 run")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml $(VENV)/.bootstrap
	@echo "Installing into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements-dev.lock
	@touch $@
