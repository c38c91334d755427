# otelgw: `make run` starts it, `make test` tests it, `make` lists the rest. Needs GNU make 3.81+ and Python 3.11+ only.
# Arguments go through ARGS:   make run ARGS="--port 4001"      make test ARGS="-k streaming"
SHELL = /bin/sh
.DEFAULT_GOAL := help

VENV ?= .venv
ARGS ?=
# Most of what tests do is to wait for servers, so two of them run at a time; a file's tests stay together.
JOBS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev
INPUTS := pyproject.toml constraints.txt

# The first interpreter that is new enough and can make a virtual environment with pip in it.
PROBE := import ensurepip, sys, venv; ensurepip.version(); sys.exit(sys.version_info < (3, 11))
FIND_PYTHON = for python in $(PYTHON) python3.14 python3.13 python3.12 python3.11 python3 python; do \
	  if "$$python" -c '$(PROBE)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'otelgw needs Python 3.11 or newer with the venv module (Debian, Ubuntu: apt install python3-venv), or name one: make PYTHON=/path/to/python3' >&2; \
	  exit 1; \
	fi

.PHONY: help run test servers lint format check bench soak build constraints clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## install into .venv and start the gateway on 127.0.0.1:4000, spans on the console
	@exec $(BIN)/otelgw serve $(ARGS)

test: $(INSTALLED_DEV) ## install the development tools too and run the tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

servers: $(INSTALLED_DEV) ## get the real servers that some tests need (needs Go, npm and Maven; 15 minutes the first time)
	@$(BIN)/python -m tests.servers build $(ARGS)

lint: $(INSTALLED_DEV) ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED_DEV) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

check: lint test ## lint, then test

bench: $(INSTALLED_DEV) ## CPU and latency beside a direct call and nginx (ARGS="--help" for the options)
	@$(BIN)/python -m benchmarks $(ARGS)

soak: $(INSTALLED_DEV) ## 100,000 spans through gateways, Kafka and Collectors, while parts of it die (ARGS="--spans N")
	@$(BIN)/python -m benchmarks.soak $(ARGS)

build: $(INSTALLED_DEV) ## build the wheel and the sdist into dist/
	@$(BIN)/python -m build --outdir dist .

constraints: $(INSTALLED_DEV) ## write the versions in .venv to constraints.txt
	@sed '/^[^#]/d' constraints.txt > constraints.txt.new
	@$(PIP) freeze --exclude-editable | LC_ALL=C sort -f >> constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean: ## remove .venv, caches and build products
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(FIND_PYTHON); \
	echo "otelgw: making $(VENV) with $$("$$found" --version)" && \
	{ "$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; }

$(INSTALLED): $(INPUTS) | $(BIN)/python
	@echo 'otelgw: installing (the first time takes a minute)'
	@$(PIP) install -c constraints.txt -e .
	@touch $@

# pip knows --group from 25.1 on.
$(INSTALLED_DEV): $(INPUTS) | $(BIN)/python
	@echo 'otelgw: installing with the development tools (the first time takes a minute)'
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install -c constraints.txt -e . --group dev
	@touch $(INSTALLED) $@
