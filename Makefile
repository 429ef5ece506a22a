# Every target makes .venv first, and again only when pyproject.toml has changed.
PYTHON ?= python3
PORT ?= 8888
DATA ?= build/serve
STAMP := .venv/.made
RUN := .venv/bin/python
PYTEST := $(RUN) -m pytest -rs --durations=10

.DEFAULT_GOAL := help
.PHONY: demo serve test test-long test-managers lint bench help clean

demo: $(STAMP) ## run a real notebook on a kernel elsewhere, through a gateway
	$(RUN) examples/demo.py

serve: $(STAMP) ## run a gateway on this machine, with every kernel that .venv has
	.venv/bin/elsewhere serve --allow-root --ip=127.0.0.1 --port=$(PORT) --default-cluster=local --data-directory=$(DATA)

test: lint ## lint, then every test that needs no manager
	$(PYTEST) -n 2 --dist worksteal tests/unit tests/recorded tests/laws tests/acceptance

test-long: $(STAMP) ## the roster against 100,000 steps of faults (minutes)
	ELSEWHERE_LONG=1 $(PYTEST) tests/unit/test_roster_machine.py

test-managers: $(STAMP) ## the tests against real managers
	$(PYTEST) tests/managers

lint: $(STAMP) ## ruff, mypy and the contracts between the layers
	$(RUN) -m ruff check .
	$(RUN) -m mypy $(wildcard src tests benchmarks examples)
	.venv/bin/lint-imports

bench: $(STAMP) ## measure against the stock provisioner and other servers, and at scale (half an hour)
	$(RUN) benchmarks/run.py
	$(RUN) benchmarks/servers.py
	$(RUN) benchmarks/relay.py
	$(RUN) benchmarks/scale.py

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18
	@echo "  PYTHON=…        the interpreter that .venv is made of, 3.10 or newer (now: $(PYTHON))"
	@echo "  PORT=… DATA=…   where make serve listens, and what it keeps (now: $(PORT), $(DATA))"

clean: ## remove .venv, caches and what was built
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml .ci/venv
	@echo "setting up .venv (minutes the first time)"
	@.ci/venv "$(PYTHON)"
	@touch $@
