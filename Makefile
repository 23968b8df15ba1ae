# Everything a checkout needs. `make help` lists the targets.
#
# A fresh machine needs Python >= 3.11, git and make; nothing is installed outside `.venv`. Stamps in `.venv`
# record which lock file was installed, so that a second `make demo` starts at once.
#
#   make demo ARGS="--seed 1"        passes arguments on to `keirin demo`
#   make install PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# pytest-xdist processes. Each compiles for itself, so more than the cores only costs memory. A file stays in one
# process, whose compiled programs it shares; in the order of collection small files come last and fill the gaps.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3)

RUNTIME_STAMP := $(VENV)/.installed-runtime
DEV_STAMP := $(VENV)/.installed-dev
BROWSER_STAMP := $(VENV)/.installed-browser
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo up test test-slow test-browser lint bench gallery probes-page lock clean

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(RUNTIME_STAMP) ## Create .venv and install the locked versions and the `keirin` command

demo: $(RUNTIME_STAMP) ## Run the whole pipeline on embedded data (minutes on 2 cores)
	$(BIN)/keirin demo $(ARGS)

up: $(RUNTIME_STAMP) ## Start the web interfaces (Prefect, MLflow, Dask) on this machine
	$(BIN)/keirin up $(ARGS)

test: $(DEV_STAMP) ## Run the tests
	$(PYTEST) $(ARGS)

test-slow: $(DEV_STAMP) ## Run the tests, the slow ones included, on programs compiled as for users
	$(PYTEST) --optimized -m "not browser and not gpu" $(ARGS)

test-browser: $(BROWSER_STAMP) ## Click through `keirin up` in a headless Chromium (apt install chromium)
	$(BIN)/python -m pytest -m browser $(ARGS)

lint: $(DEV_STAMP) ## Run ruff, mypy --strict and the layering contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(RUNTIME_STAMP) ## Run every script in benchmarks/ that measures something
	@set -e; found=; for script in benchmarks/*.py; do \
	  case "$$script" in */write_*) continue;; esac; \
	  [ -f "$$script" ] || continue; found=1; echo "== $$script"; $(BIN)/python "$$script" $(ARGS); \
	done; [ -n "$$found" ] || { echo "error: no scripts in benchmarks/" >&2; exit 1; }

gallery: $(RUNTIME_STAMP) ## Draw docs/tasks.md: a sample, a configuration and a learning curve per task family
	$(BIN)/python docs/make_task_gallery.py

probes-page: $(RUNTIME_STAMP) ## Write docs/probes.md from the registry of probes
	$(BIN)/python docs/make_probes_page.py

# Both locks hold for every supported Python and platform; versions move only with UPGRADE=--upgrade.
lock: ## Resolve requirements.lock and requirements-dev.lock again (needs uv)
	@command -v uv >/dev/null || { echo "error: \`make lock\` needs uv: pip install uv" >&2; exit 1; }
	@$(call compile,requirements.lock,)
	@$(call compile,requirements-dev.lock,--extra dev --constraint requirements.lock)

define compile
uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url $(UPGRADE) $(2) \
  pyproject.toml --output-file $(1) && \
{ printf '# Made by `make lock` from pyproject.toml: do not edit.\n' && cat $(1); } > $(1).new && mv $(1).new $(1)
endef

clean: ## Remove .venv, caches and build outputs; keep .keirin, where the results are
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A name on PATH may be a shim that fails, or a Python without ensurepip: only one that really runs will do.
$(BIN)/python:
	@found=; old=; bare=; for candidate in $(CANDIDATES); do \
	  version=$$("$$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { old="$$old $$candidate is $$version;"; continue; }; \
	  "$$candidate" -c 'import ensurepip, venv' 2>/dev/null || { bare="$$candidate ($$version)"; continue; }; \
	  found=$$candidate; break; \
	done; \
	if [ -z "$$found" ] && [ -n "$$bare" ]; then \
	  echo "error: $$bare cannot create virtual environments: install its venv package (Debian, Ubuntu: python3-venv)." >&2; exit 1; \
	elif [ -z "$$found" ]; then \
	  echo "error: keirin needs Python >= 3.11; tried $(CANDIDATES);$$old none will do. Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$found"; "$$found" -m venv $(VENV)

$(RUNTIME_STAMP): requirements.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --requirement requirements.lock
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

$(DEV_STAMP): requirements-dev.lock $(RUNTIME_STAMP)
	$(PIP) install --quiet --requirement requirements-dev.lock
	@touch $@

$(BROWSER_STAMP): $(DEV_STAMP)
	$(PIP) install --quiet --constraint requirements-dev.lock --editable ".[browser]"
	@touch $@
