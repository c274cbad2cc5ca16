# Carpal: search, combine and serve bone-age models. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PY := .venv/bin/python
# Everything that the demo writes lies here; the run before is kept as demo.before.
override WORK := demo
# A folder in the RSNA layout; without it the demo draws its own radiographs.
DATA ?=
SOURCE := $(or $(DATA),$(WORK)/radiographs)
PORT ?= 8000

export NO_ALBUMENTATIONS_UPDATE := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: help demo data published serve test faults cluster check lint types install

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  make demo DATA=FOLDER   the same on your own radiographs (a CSV of id, boneage, male beside the pictures)"

demo: data install ## the whole product once, on drawn hands: search, ensemble, service, one answer, one page
	@rm -rf $(WORK).before; ! test -e $(WORK) || mv $(WORK) $(WORK).before
	@mkdir $(WORK)
	@echo "== 1/7 radiographs: $(if $(DATA),$(DATA),400 drawn hands)"
	$(if $(DATA),,$(PY) -m preprocessing phantom $(SOURCE) --cases 400 --seed 1)
	@echo "== 2/7 cohort: standardise, lock the test split, draw the folds"
	$(PY) -m preprocessing prepare '$(SOURCE)' $(WORK)/cohort --size 96 --folds 3 --test 0.1
	@echo "== 3/7 search: 12 trials x 3 folds, the worse ones stopped early"
	$(PY) -m search run $(WORK)/cohort $(WORK)/study --space quick --trials 12 --pool 4
	@echo "== 4/7 ensemble: weights from out-of-fold predictions, published as champion"
	$(PY) -m ensemble build $(WORK)/study $(WORK)/registry
	@echo "== 5/7 locked test"
	$(PY) -m ensemble evaluate $(WORK)/registry $(WORK)/cohort
	@echo "== 6/7 service: start it, ask it about a radiograph that no model has seen, stop it"
	@port=$$($(PY) -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'); \
	$(PY) -m serve $(WORK)/registry --port $$port --open & server=$$!; \
	trap 'kill $$server 2>/dev/null || true; wait $$server || true' EXIT; \
	$(PY) -m serve.ask http://127.0.0.1:$$port --cohort $(WORK)/cohort --wait 180 --out $(WORK)/answer.json
	@echo "== 7/7 page"
	$(PY) -m ensemble report $(WORK)/registry --study $(WORK)/study --cohort $(WORK)/cohort \
		--answer $(WORK)/answer.json --out $(WORK)/report.html
	@echo "Done. Open $(WORK)/report.html in a browser, or keep the service running with: make serve"

data:
	@test -z '$(DATA)' || test -d '$(DATA)' || { echo "DATA must name a folder, and $(DATA) is none." >&2; exit 2; }
	@case "$$(realpath -m -- '$(or $(DATA),/)')/" in "$$PWD"/$(WORK)/*|"$$PWD"/$(WORK).before/*) \
		echo "DATA must lie outside $(WORK)/, which the demo replaces. Move the radiographs first." >&2; exit 2;; esac

published:
	@test -d $(WORK)/registry || { echo "There is no $(WORK)/registry yet: run make demo first." >&2; exit 2; }

serve: published install ## serve what the demo published, until stopped (PORT=8000)
	@exec $(PY) -m serve $(WORK)/registry --port $(PORT) --open

test: install lint types ## lint, format, types and the whole default test suite
	$(PY) -m pytest

faults: install ## searches whose workers, driver, Ray, disk or cohort are taken away, ten minutes
	$(PY) -m pytest -m faults

cluster: install ## ray up on three hosts of this machine, which then die in turn; root, a quarter of an hour
	$(PY) -m pytest -m cluster -rs

check: install lint types ## lint, format, types and the fast tests, about two minutes
	$(PY) -m pytest -m "not ray and not slow and not browser"

lint:
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types:
	$(PY) -m mypy

install: .venv/installed

.venv/installed: pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "Python 3.11 or newer is needed, and $(PYTHON) is not installed." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "Python 3.11 or newer is needed, got $$($(PYTHON) --version 2>&1 | head -n 1). Name another one: make PYTHON=python3.11 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}'); test "$$free" -ge 9 || test -d .venv || { echo "9 GB of free disk are needed for PyTorch and the rest, $$free GB are left here." >&2; exit 1; }
	@echo "== installing into .venv, once: two to ten minutes, 6 GB"
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --disable-pip-version-check --progress-bar off -e '.[dev]' -c requirements.lock 2>&1 \
		| tee .venv/install.log | awk '/^(Collecting|Installing)/ {printf "%s%s", $$1 == "Installing" ? "\n   unpacking " : " ", $$1 == "Installing" ? NF - 3 " packages\n" : $$2; fflush()}' \
		|| { echo; grep -iE "error|no space" .venv/install.log | tail -n 4; echo "The installation failed. It needs the network and 6 GB of disk; what pip said is in .venv/install.log. Run make again afterwards." >&2; exit 1; }
	@touch $@
