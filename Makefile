# Everything sets itself up: `make lab` and `make test` are all that a fresh machine needs.
# PYTHON=python3.12 make test chooses another interpreter (3.11 or newer).

VENV := .venv
BIN := $(VENV)/bin
TESTS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help lab test pictures docs soak demo bench conformance conformance-record lint check clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

lab: ## JupyterLab on the first notebook
	@tools/lab

demo: ## the first notebook's story in the terminal
	@tools/setup run
	@$(BIN)/python tools/demo.py

test: ## the whole test suite (TESTS="tests/store -k tar" for a part of it)
	@tools/test $(TESTS)

docs: ## the documentation as pages, with the notebooks executed and a reference made of the code, in .cache/site
	@tools/setup docs
	@$(BIN)/python tools/docs.py

pictures: ## every card in JupyterLab, light and dark, into docs/images/ and .cache/pictures/ (look at each)
	@tools/setup test
	@$(BIN)/python tools/pictures.py

SOAKED := tests/reliability tests/network tests/build/test_file_systems.py tests/browser/test_much.py \
	tests/hostile/test_races.py tests/runtime/test_rounds.py tests/notebook/test_kernel_rounds.py \
	tests/store/test_store.py tests/oci_runtime
soak: ## reliability at full count: every kill point, power cut, disk size, and long fuzzing (some hours)
	@tools/setup test
	@NBCONTAIN_DOCKERFILES=300000 nice $(BIN)/python -m pytest tests/dockerfile -q
	@NBCONTAIN_SOAK=1 nice $(BIN)/python -m pytest $(SOAKED) -s --timeout 3600
	@NBCONTAIN_STORAGE_DRIVER=copy nice $(BIN)/python -m pytest tests/hostile tests/conformance/test_recorded.py -q
	@nice $(BIN)/python tests/reliability/outside.py
	@nice $(BIN)/python tests/reliability/nfs.py
	@nice $(BIN)/python tests/fuzz/parsers.py --runs $(or $(FUZZ_RUNS),10000000) tar manifest reference digest "auth challenge"
	@nice $(BIN)/python tests/fuzz/parsers.py $(or $(FUZZ_S),1800)

bench: ## the figures, as ratios to C programs that do the same kernel work
	@tools/setup test
	@set -e; for each in benchmarks/*.py; do echo "== $$each"; $(BIN)/python $$each; done

conformance: ## each case built here, by docker and by buildah, and compared; writes docs/conformance.md
	@tools/setup test
	@$(BIN)/python tests/conformance/compare.py live

conformance-record: ## what docker makes of each case, written down for make test
	@tools/setup test
	@$(BIN)/python tests/conformance/compare.py record

lint: ## ruff and mypy --strict
	@tools/setup dev
	@$(BIN)/ruff check .
	@$(BIN)/mypy

check: lint test ## what should hold before a change is handed in

clean: ## forget the environment and the caches
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
