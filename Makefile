# Each target sets up what it needs: a virtual environment in .venv, the locked packages, gVisor.
# `make help` lists the targets.

PYTHON ?= python3
PYTEST_OPTIONS ?=
TEST_PROCESSES ?= 3
SOAK_OPTIONS ?=
TEST_PROGRAMS := gpg gpg-agent openssl nft:nftables ip:iproute2 git curl wget
E2E_VENV := .venv-e2e
BENCH_VENV := build/bench-venv
VM_PROGRAM := qemu-system-x86_64
VM_PACKAGES := qemu-system-x86 linux-image-amd64 busybox-static
FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help demo test soak bench bench-docs fuzz lint format plugins schema docs lock e2e containers vm clean root

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: root .venv/ready ## Show the main job: lockdown, a signed policy, a valve, code in gVisor
	@.venv/bin/sandbox install
	@.venv/bin/python examples/demo.py

test: root .venv/ready ## Run every test, those against real gVisor included (eight minutes)
	@.venv/bin/sandbox install
	@for program in $(TEST_PROGRAMS); do PATH="$$PATH:/usr/sbin" command -v $${program%:*} >/dev/null || missing="$$missing $${program#*:}"; done; \
		[ -z "$$missing" ] || ! command -v apt-get >/dev/null || { echo "Installing$$missing, which tests compare with…"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; }
	@echo "In $(TEST_PROCESSES) processes at once (fewer or more: make test TEST_PROCESSES=2)…"
	@.venv/bin/python -m pytest tests --numprocesses=$(TEST_PROCESSES) --dist=loadfile $(PYTEST_OPTIONS)

soak: root .venv/ready ## Run a thousand boxes, then five minutes of steady load; nothing may grow (build/soak.json)
	@.venv/bin/sandbox install
	@.venv/bin/python -m tests.soak $(SOAK_OPTIONS)

bench: root .venv/ready ## Measure speed beside references in the same run (build/bench/)
	@.venv/bin/sandbox install
	@command -v bwrap >/dev/null || ! command -v apt-get >/dev/null || { echo "Installing bubblewrap, which runs are compared with…"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null; } || echo "It cannot be installed here: left out."
	@$(MAKE) --no-print-directory $(BENCH_VENV)/ready || echo "That cannot be installed here: peer, packages and picture are left out."
	@.venv/bin/python -m tests.bench

bench-docs: .venv/ready ## Put what make bench measured last into README.md and docs/
	@.venv/bin/python -m tests.bench.publish

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

# What the bench compares with or draws with, and this project itself does not need.
$(BENCH_VENV)/ready: .venv/ready tests/bench/requirements.txt tests/sandbox/packages-requirements.txt
	@echo "Setting up $(BENCH_VENV) with matplotlib and the gvisor wheel (half a minute, once)…"
	@rm -rf $(BENCH_VENV) && real=$$($(PYTHON) -c 'import sys; print(sys.executable)') && $$real -m venv --without-pip $(BENCH_VENV) \
		&& $$real -m pip --python $(BENCH_VENV)/bin/python install --quiet --disable-pip-version-check --only-binary=:all: --no-deps \
		-r tests/bench/requirements.txt && touch $(BENCH_VENV)/ready

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
	@command -v podman >/dev/null && command -v runc >/dev/null && PATH="$$PATH:/usr/sbin" command -v nft >/dev/null \
		|| { echo "Installing podman, runc and nftables…"; apt-get update -qq && apt-get install -y -qq podman runc nftables >/dev/null; }
	@.venv/bin/sandbox install
	@.venv/bin/python -m pytest tests/containers $(PYTEST_OPTIONS)

vm: root .venv/ready ## Test limits on cgroup v2 alone, in a virtual machine (qemu without kvm, four minutes)
	@busybox=$$(command -v busybox) && ! ldd $$busybox >/dev/null 2>&1 && command -v $(VM_PROGRAM) >/dev/null && ls /boot/vmlinuz-* /lib/modules/*/modules.dep >/dev/null 2>&1 \
		|| { echo "Installing qemu, a kernel and busybox…"; apt-get update -qq && apt-get install -y -qq --no-install-recommends $(VM_PACKAGES) >/dev/null; }
	@.venv/bin/sandbox install
	@.venv/bin/python -m pytest tests/vm/test_machine.py -q $(PYTEST_OPTIONS)
	@.venv/bin/python -m tests.vm

clean: ## Remove what make made, but for the Open WebUI environment
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
