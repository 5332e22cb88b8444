# Everything below works on a fresh machine with make and Python 3.11 or newer. `make` alone prints what there is.

PORT    ?= 8000
WORKERS ?= 2
HUBS    ?= 1
STATE   ?= .state

# deploy.demo and deploy.watch look for the running stack there.
export STATE PORT

# The first Python that is new enough and can make environments; PYTHON=… names one.
NEW_ENOUGH = -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,$(shell $(p) $(NEW_ENOUGH) && echo $(p))))

require_python = '$(PYTHON)' $(NEW_ENOUGH) || { echo "Headway needs Python 3.11 or newer with venv and ensurepip$(if \
	$(PYTHON),; $(PYTHON) is not that): name one with PYTHON=…" >&2; exit 1; }

VENV  := .venv
PY    := $(VENV)/bin/python
LOCAL := $(VENV)/.requirements-local.txt.installed
DEV   := $(VENV)/.requirements-dev.txt.installed

# An environment that was interrupted, or whose Python has gone since, is made again although its stamps are there.
ifneq ($(wildcard $(VENV)),)
ifneq ($(shell test ! -e $(VENV)/.unfinished && $(PY) -c 'print(1)' 2>/dev/null),1)
.PHONY: $(LOCAL) $(DEV)
endif
endif

# Only what was said on the command line or in the environment: scaling one thing leaves the other as it is.
said = $(if $(filter command environment,$(origin $(1))),$(2) '$($(1))')

.DEFAULT_GOAL := help
.PHONY: help up demo scale watch flower test lint bench lock clean compose-up compose-scale

help:  ## this list
	@echo "Headway: real-time progress for Celery tasks"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24
	@echo
	@echo "Variables: PORT=$(PORT) WORKERS=$(WORKERS) HUBS=$(HUBS) STATE=$(STATE)"
	@echo "HEADWAY_REDIS_URL, CELERY_BROKER_URL and DATABASE_URL name servers to use instead of our own."

up: $(LOCAL)  ## run hub, keeper, workers, Valkey and PostgreSQL here until Ctrl-C
	@$(PY) -m deploy.up --port '$(PORT)' --workers '$(WORKERS)' --hubs '$(HUBS)' --state '$(STATE)'

demo: $(LOCAL)  ## one real job and its bar, on the running stack or on one of its own
	@$(PY) -m deploy.demo

scale: $(LOCAL)  ## change the running stack: make scale HUBS=2 WORKERS=4
	@$(PY) -m deploy.scale $(call said,HUBS,--hubs) $(call said,WORKERS,--workers) --state '$(STATE)'

watch: $(LOCAL)  ## follow a task in the terminal: make watch TASK=<id>
	@$(PY) -m deploy.watch '$(TASK)'

flower: $(LOCAL)  ## Flower on the broker of the running stack (FLOWER_PORT=5555)
	@$(PY) -m deploy.flower $(call said,FLOWER_PORT,--port) --state '$(STATE)'

# Two at a time: most tests wait for a server most of their time. A file's tests stay together, as they share servers.
test: $(DEV)  ## all tests, on real servers (ARGS=… goes to pytest)
	@$(PY) -m pytest -q -n 2 --dist loadfile $(ARGS)

lint: $(DEV)  ## ruff and mypy --strict
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

bench: $(DEV)  ## measure, beside the peers (QUICK=1: in two minutes; ARGS=… goes to the benchmark)
	@$(PY) -m bench $(ARGS)

compose-up:  ## the same in containers, on http://127.0.0.1:8000
	docker compose up --build -d --wait

compose-scale:  ## change the containers: make compose-scale WORKERS=3
	docker compose up -d --no-recreate --scale worker='$(WORKERS)'

lock: $(DEV)  ## compile requirements*.txt from pyproject.toml (ARGS=--upgrade for the newest)
	@$(PY) -m deploy.lock $(ARGS)

clean:  ## remove .venv, caches and the state folder, unless a stack runs on it
	@$(require_python)
	@'$(PYTHON)' -B deploy/clean.py '$(STATE)'

$(LOCAL): requirements.txt requirements-local.txt
	@$(require_python)
	@'$(PYTHON)' -B deploy/venv.py $(VENV) requirements.txt requirements-local.txt

$(DEV): requirements-dev.txt $(LOCAL)
	@$(require_python)
	@'$(PYTHON)' -B deploy/venv.py $(VENV) requirements.txt requirements-local.txt requirements-dev.txt
