# What users and CI run. Everything lives in .venv; a second run needs no network.

VENV := .venv
BIN := $(VENV)/bin

# The first Python that is new enough; empty when there is none.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$each -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$each; break; }; done)

# The build's own tool is pinned as well; two names, for older and newer versions of pip.
PIN := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt
INSTALL := $(PIN) $(BIN)/python -m pip install --disable-pip-version-check --quiet

NO_PYTHON := 'Python 3.11 or newer is needed and none was found: install it, or run make PYTHON=/path/to/python3'
NO_VENV := 'A virtual environment cannot be created: install the venv module (Debian, Ubuntu: apt-get install python3-venv)'
NO_PACKAGES := 'The dependencies cannot be installed: check network, proxy and free space, then run make again'

.PHONY: help setup setup-dev browser prometheus up down status check format docs docs-serve docs-reference test dist chaos windows fuzz soak peers

help:
	@echo 'make up      broker, database and workers, here in the foreground (Ctrl-C ends them)'
	@echo 'make down    end a stack that runs in the background'
	@echo 'make setup   only create the environment in .venv'
	@echo 'make check   formatting, lint, types, import contracts, security'
	@echo 'make test    all tests'
	@echo 'make docs    the documentation site, into site/; docs-serve shows it, docs-reference renews what the code states'
	@echo 'make dist    the wheel and the sdist, in dist/, tried out with every extra in an empty folder'
	@echo 'make fuzz    a million fuzzed records, 300,000 through a whole stack, every input with 5,000 examples; SEED=n repeats a run'
	@echo 'make chaos   faults under load for 15 minutes, judged by an oracle; SEED=n repeats a run'
	@echo 'make windows  twenty rounds of windows under faults, compared with DuckDB; SEED=n repeats a run'
	@echo 'make peers   StreamFlow beside hand-written loops and other frameworks, next to a running stack; ARGS="--runs 5"'
	@echo 'make soak    half an hour at 2,000 events/s with restarts: does anything grow?'

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n '$(PYTHON)' || { echo $(NO_PYTHON) >&2; exit 1; }
	@echo 'setup: creating $(VENV)'
	@$(PYTHON) -m venv $(VENV) || { echo $(NO_VENV) >&2; exit 1; }
	@echo 'setup: installing StreamFlow and what it needs; the first time takes a minute or more'
	@$(INSTALL) --editable '.[all]' || { echo $(NO_PACKAGES) >&2; exit 1; }
	@touch $@

setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo 'setup: installing the tools of development'
	@$(INSTALL) --editable '.[dev,docs]' || { echo $(NO_PACKAGES) >&2; exit 1; }
	@touch $@

up: setup
	@$(BIN)/streamflow up

down: setup
	@$(BIN)/streamflow down

status: setup
	@$(BIN)/streamflow status

PACKAGES := $(patsubst %/__init__.py,%,$(wildcard stream*/__init__.py))

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(PACKAGES)

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The site, into site/: a broken link or a page without an entry in mkdocs.yml ends the build.
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs

docs: setup-dev
	$(MKDOCS) build --strict

docs-serve: setup-dev
	$(MKDOCS) serve --strict

# Pages that the code states: command line, settings, metrics.
docs-reference: setup-dev
	$(BIN)/python -m streamflow_cli.reference

# Tests of the dashboard look at it with a real browser: the distribution's Chromium, or $$CHROMIUM.
CHROMIUMS := chromium chromium-browser google-chrome google-chrome-stable
NO_BROWSER := 'The tests of the dashboard need Chromium: install it (Debian, Ubuntu: apt-get install chromium), or set CHROMIUM to its path'

browser:
	@for each in $(CHROMIUM) $(CHROMIUMS); do command -v $$each >/dev/null 2>&1 && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core; } >/dev/null 2>&1 && exit 0; \
	fi; \
	echo $(NO_BROWSER) >&2; exit 1

# Tests ask a real Prometheus; Debian's package brings promtool, too.
prometheus:
	@command -v prometheus promtool >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		export DEBIAN_FRONTEND=noninteractive; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus; } >/dev/null 2>&1 \
			&& exit 0; \
	fi; \
	echo 'The tests of the alert rules need prometheus and promtool on the PATH (Debian, Ubuntu: apt-get install prometheus)' >&2; exit 1

# Four processes, each with a broker and a database of its own: most tests wait more than they work.
# Their brokers start in half the time with Kafka's classes linked ahead, which is done once.
test: setup-dev browser prometheus
	@$(BIN)/python -m streamflow_stack.aot_training || echo 'brokers start without their classes linked ahead' >&2
	$(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

# The folder holds nothing else: it is what a release uploads.
dist: setup-dev
	@rm -rf dist
	$(BIN)/pytest -m 'acceptance or dist' tests/acceptance/test_distribution.py $(ARGS)
	$(BIN)/python tests/distributions.py dist

# Every way in which a connection breaks, then fifteen minutes of faults under load, by a seed: compared
# by an oracle that knows nothing of the product.
MINUTES ?= 15
ifndef SEED
SEED := $(shell date +%s)
endif
chaos: setup-dev
	$(BIN)/pytest -m chaos $(ARGS)
	PYTHONPATH=tests $(BIN)/python tests/chaos/rounds.py --minutes $(MINUTES) --seed $(SEED)

# Totals of windows while workers and the broker are killed, compared with DuckDB's.
ROUNDS ?= 20
windows: setup-dev
	PYTHONPATH=tests $(BIN)/python tests/chaos/shop.py --rounds $(ROUNDS) --seed $(SEED)

SOAK_MINUTES ?= 30
soak: setup-dev
	PYTHONPATH=tests $(BIN)/python tests/chaos/soak.py --minutes $(SOAK_MINUTES) --rate 2000

# Some fifteen minutes on two cores.
COUNT ?= 1000000
STACK_COUNT ?= 300000
fuzz: setup-dev
	PYTHONPATH=tests $(BIN)/python tests/fuzz/records.py --count $(COUNT) --seed $(SEED)
	PYTHONPATH=tests $(BIN)/python tests/fuzz/stack.py --count $(STACK_COUNT) --seed $(SEED)
	FUZZ_EXAMPLES=5000 $(BIN)/pytest --timeout 1800 --hypothesis-seed $(SEED) tests/fuzz/test_doors.py

# Other frameworks have pins of their own, so they get an environment of their own.
PEERS := benchmarks/peers

peers: setup .venv-peers/.installed
	$(BIN)/streamflow bench --peers $(ARGS)

.venv-peers/.installed: $(PEERS)/requirements.txt $(PEERS)/constraints.txt
	@echo 'peers: installing Bytewax, Pathway and Quix Streams in .venv-peers; this takes some minutes'
	@$(PYTHON) -m venv .venv-peers || { echo $(NO_VENV) >&2; exit 1; }
	@PIP_CONSTRAINT=$(PEERS)/constraints.txt .venv-peers/bin/python -m pip install \
		--disable-pip-version-check --quiet -r $(PEERS)/requirements.txt || { echo $(NO_PACKAGES) >&2; exit 1; }
	@touch $@
