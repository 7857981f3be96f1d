# Each target sets up what it needs: a virtual environment in .venv, the locked packages, gVisor.
# `make help` lists the targets.

PYTHON ?= python3
PYTEST ?= pytest
PYTEST_OPTIONS ?=
TEST_PROGRAMS := gpg gpg-agent openssl
E2E_VENV := .venv-e2e
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help demo test bench fuzz lint format plugins schema docs lock e2e containers clean root

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: root .venv/ready ## Show the main job: lockdown, a signed policy, a valve, code in gVisor
	@.venv/bin/sandbox install
	@.venv/bin/python examples/demo.py

test: root .venv/ready ## Run every test, those against real gVisor included
	@.venv/bin/sandbox install
	@for program in $(TEST_PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
		[ -z "$$missing" ] || ! command -v apt-get >/dev/null || { echo "Installing$$missing, which tests compare with…"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
	@mkdir -p build; echo "Two halves at once: tests/policy (told at the end), and all others."; \
		.venv/bin/python -m $(PYTEST) tests/policy $(PYTEST_OPTIONS) > build/policy-tests.log 2>&1 & half=$$!; \
		.venv/bin/python -m $(PYTEST) tests --ignore=tests/policy $(PYTEST_OPTIONS); rest=$$?; \
		wait $$half; policy=$$?; cat build/policy-tests.log; exit $$((rest > policy ? rest : policy))

bench: .venv/ready ## Measure speed beside references in the same run (build/bench/)
	@.venv/bin/python -m tests.bench

lint: .venv/ready ## Check format, style, types and layers
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports

format: .venv/ready ## Format the sources
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

plugins: .venv/ready ## Write plugins/generated from the sources
	.venv/bin/python -m plugins.flatten

schema: .venv/ready ## Write policy/policy.schema.json from the table of limits
	.venv/bin/policy schema > build/policy.schema.json && mv build/policy.schema.json policy/policy.schema.json

fuzz: .venv/ready ## Fuzz what reads TOML for FUZZ_SECONDS (with the extra `fuzz` installed)
	@.venv/bin/python -m tests.fuzz.toml_reading --seconds $(FUZZ_SECONDS)

docs: .venv/ready ## Write docs/lint-rules.md from the rules
	.venv/bin/python -m policy.lint.rule_texts > build/lint-rules.md && mv build/lint-rules.md docs/lint-rules.md

lock: .venv/ready ## Renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-header --no-emit-index-url -q -o requirements.lock
	printf 'hatchling\n' | uv pip compile pyproject.toml - --constraint requirements.lock --universal --generate-hashes --no-annotate --no-header --no-emit-index-url -q -o requirements-run.lock

# One Python process makes the environment without ensurepip, which Debian ships in a package of its own.
.venv/ready: requirements.lock
	@echo "Setting up .venv with the packages of requirements.lock (about a minute, once)…"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than Python 3.11. Install Python 3.11, or name another: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || { echo "$(PYTHON) has no pip. Install it: apt-get install python3-pip"; exit 1; }
	@rm -rf .venv && real=$$($(PYTHON) -c 'import sys; print(sys.executable)') && $$real -m venv --without-pip .venv \
		&& $$real -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --require-hashes -r requirements.lock \
		&& $$real -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@mkdir -p build && touch .venv/ready

root:
	@[ "$$(id -u)" = 0 ] || { echo "This needs root: without it this machine gives no cgroups to hold RAM, CPU and process limits."; \
		echo "Run it as root: sudo make …. What needs no root: make lint."; exit 1; }

e2e: root .venv/ready ## Drive a real Open WebUI 0.12.4 (own environment, 2.5 GB)
	@test -e $(E2E_VENV)/ready || { echo "Setting up $(E2E_VENV) with Open WebUI 0.12.4 (2.5 GB, about eight minutes, once)…"; \
		real=$$($(PYTHON) -c 'import sys; print(sys.executable)') && $$real -m venv --without-pip $(E2E_VENV) \
		&& $$real -m pip --python $(E2E_VENV)/bin/python install --quiet -r tests/e2e/requirements.lock && touch $(E2E_VENV)/ready; }
	@test -x /usr/bin/chromium || { echo "Installing Chromium…"; apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }
	@.venv/bin/sandbox install
	@$(E2E_VENV)/bin/python -m tests.e2e

containers: root .venv/ready ## Try the settings of docs/setup.md in real containers (podman)
	@command -v podman >/dev/null && command -v runc >/dev/null || { echo "Installing podman and runc…"; apt-get update -qq && apt-get install -y -qq podman runc >/dev/null; }
	@.venv/bin/sandbox install
	@.venv/bin/python -m pytest tests/containers $(PYTEST_OPTIONS)

clean: ## Remove what make made, but for the Open WebUI environment
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
