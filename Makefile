# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements/constraints.txt scripts/setup_venv.sh
	PYTHON="$(PYTHON)" sh scripts/setup_venv.sh
	@touch $(STAMP)

.PHONY: setup
setup: $(STAMP) ## Create .venv and install everything into it

.PHONY: demo
demo: $(STAMP) ## Set up, then ask three questions of this machine's own Python documentation
	$(BIN)/ragrig demo

.PHONY: test
test: $(STAMP) ## Set up, then run the whole test suite
	$(BIN)/python -m pytest

.PHONY: lint
lint: $(STAMP) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(STAMP) ## Rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: $(STAMP) ## Generate ragschema/wire/ from proto/
	$(BIN)/python scripts/generate_wire.py

.PHONY: bench
bench: $(STAMP) ## Run every benchmark and print its JSON
	$(BIN)/python -m bench.demo_quality --json
	$(BIN)/python -m bench.overhead --json

.PHONY: up
up: $(STAMP) ## Start the default rig until Ctrl-C
	$(BIN)/ragrig up

.PHONY: doctor
doctor: $(STAMP) ## Say what this machine can do and what to install
	$(BIN)/ragrig doctor

.PHONY: clean
clean: ## Remove caches and build products, keep .venv and collections
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
