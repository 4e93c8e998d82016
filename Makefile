# Two commands do everything: `make demo` and `make test`. The others are their parts.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKOV := build/checkov/bin/checkov
# What the tests take from npm, where that is there; without it they say so and skip.
FROM_NPM := $(if $(shell command -v npm),tests/node_modules/.package-lock.json)
# The newest interpreter that fits: the one named on the command line, `python3.13`, or one that uv or pyenv keeps.
PYTHON ?= $(shell sh requirements/find-python)

.PHONY: demo test test-slow checkov bench chaos proof fuzz mutants supply-chain sbom bench-start check format install lock clean help
.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY) ## a live table, the service and its page, on this machine (DEMO_PORT=8080)
	@$(BIN)/python -m quartsse demo $(if $(DEMO_PORT),--port $(DEMO_PORT)) $(ARGS)

test: $(READY) $(FROM_NPM) ## every test but the slow tier (ARGS="-k name" to choose)
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-slow: $(READY) $(FROM_NPM) ## the long fault and load runs
	$(BIN)/python -m pytest -m slow $(ARGS)

checkov: $(CHECKOV) ## what is known to be unwise in infra/ and the Dockerfile; each exception stands there with its reason
	@$(CHECKOV) --directory infra --framework terraform cloudformation --skip-download --quiet --compact
	@$(CHECKOV) --file Dockerfile --framework dockerfile --skip-download --quiet --compact

$(CHECKOV): requirements/checkov.txt
	@if [ -z "$(PYTHON)" ]; then sh requirements/find-python --explain; exit 1; fi
	@"$(PYTHON)" -m venv build/checkov
	@build/checkov/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/checkov.txt
	@touch $(CHECKOV)

bench: $(READY) ## quartsse beside every peer that is installed (ARGS=--quick)
	$(BIN)/python -m tests.bench $(ARGS)

chaos: $(READY) ## two instances and 120 readers under random faults, then a verdict (SECONDS=600 SEED=7)
	$(BIN)/python -m tests.proof.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

proof: $(READY) $(FROM_NPM) ## every attack and proof but the mutants: web platform, exhaustion, conformance, frames, fuzzing
	$(BIN)/python -m pytest -q -rs tests/proof $(ARGS)

fuzz: $(READY) ## ten thousand malformed requests against a running service (ARGS="COUNT SEED")
	$(BIN)/python -m tests.proof.fuzz $(ARGS)

mutants: $(READY) ## each defence of docs/security.md turned off, the feed made wrong: a test must go red (ARGS="a word" to choose)
	$(BIN)/python -m tests.proof.mutants $(ARGS)

supply-chain: $(READY) ## pins and hashes, known holes, licences, secrets in the tree
	$(BIN)/python -m pytest -q tests/proof/test_supply_chain.py $(ARGS)

sbom: $(READY) ## what is installed with the service, as a CycloneDX bill of materials: dist/sbom.json
	@mkdir -p dist && $(BIN)/python -m tests.proof.sbom >dist/sbom.json && echo dist/sbom.json

bench-start: $(READY) ## from the process's start to a stream's first byte, with its parts (ARGS=--json)
	$(BIN)/python -m tests.bench.cold_start $(ARGS)

check: $(READY) ## formatting, lint and types, in seconds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY) ## format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(READY) ## .venv with everything for development, from hashed locks

$(READY): requirements/dev.txt pyproject.toml requirements/find-python
	@if [ -z "$(PYTHON)" ]; then sh requirements/find-python --explain; exit 1; fi
	@echo "making $(VENV) with $(PYTHON): some minutes, this once"
	@"$(PYTHON)" -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment (on Debian: install python3.13-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

tests/node_modules/.package-lock.json: tests/package-lock.json
	@npm ci --prefix tests --no-audit --no-fund --silent || echo "npm could not install what the tests take from it: those tests will skip"

lock: ## make the hashed locks again from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --no-header pyproject.toml -o requirements/base.txt
	uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --no-header pyproject.toml --extra demo --group dev -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.13 --generate-hashes --no-annotate --no-header requirements/checkov.in -o requirements/checkov.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
