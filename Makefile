# Each target works on a fresh machine: the environment is built from requirements.lock when it is
# missing or stale, with plain python3 (3.11 or newer) and nothing else installed beforehand.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

# Not asked of flake8-async: that every route handler awaits (124), httpx's successor (127), that
# task_status is used where it is handed on (128), a checkpoint on every path, which is a library's
# promise (900 and above).
ASYNC_OPTIONS := --disable=ASYNC124,ASYNC127,ASYNC128,ASYNC900,ASYNC910,ASYNC911,ASYNC912,ASYNC913 \
	--startable-in-context-manager=_run,keep_accounts,run_service,serve,serve_api,serve_control,serve_simulator,service

.PHONY: help run test check bench lock clean

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(INSTALLED) ## a complete local market: simulator, Redis server, the service
	@$(BIN)/python -m ticker

test: $(INSTALLED) ## every test, on real servers that the tests start themselves
	@$(BIN)/python -m pytest

check: $(INSTALLED) ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/flake8-async $(ASYNC_OPTIONS) $$(find api nurseries tests ticker -name "*.py")
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(INSTALLED) ## benchmarks: medians and ratios, also written to bench.json
	@$(BIN)/python -m ticker bench

lock: ## pin requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		--no-annotate --no-emit-index-url --all-extras pyproject.toml -o requirements.lock

clean: ## remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; say which with PYTHON=..."; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) (once, about a minute) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes \
		-r requirements.lock
	@touch $@
