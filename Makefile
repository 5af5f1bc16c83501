# Everything a person or CI runs. 'make' alone lists the targets.
PYTHON ?= python3
# Processes that the tests are spread over, each with one computing thread.
WORKERS ?= auto
# How long 'make fuzz' goes on, after it has opened every model undamaged.
SECONDS ?= 60
EXAMPLE ?= examples/digits-cnn.safetensors

# The order in which matrix products add up must not depend on addresses: tests compare bits (docs/training.md).
export MKL_CBWR ?= AUTO

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
PACKAGES := $(foreach plugin,$(PLUGINS),$(plugin)/$(subst -,_,$(notdir $(plugin))))

.DEFAULT_GOAL := help
.PHONY: help demo test test-processors test-timm families fuzz check format bench gpu clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core ## profile the network in examples/, then compare directions of three optimizers
	$(BIN)/curvlab analyze $(EXAMPLE)
	$(BIN)/curvlab compare --optimizers lnb,kfac,tnt

test: $(VENV)/.dev ## run every test, those of the plugins included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8

# Their results must hold on every processor: torch's kernels without vector instructions and with AVX2's stand for others.
NUMERICAL := tests/linalg tests/operators tests/curvatures tests/layers tests/capture tests/optim/test_directions.py \
	tests/optim/test_one_record.py tests/optim/test_block_fisher_routes.py tests/test_exact_statistics.py tests/test_identities.py \
	tests/test_masked_positions.py tests/test_curvlinops.py
test-processors: $(VENV)/.dev ## run the numerical tests as other processors would
	@for kind in default avx2; do \
		echo "ATEN_CPU_CAPABILITY=$$kind"; \
		ATEN_CPU_CAPABILITY=$$kind OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 8 $(NUMERICAL) || exit 1; \
	done

# timm imports torchvision, which fails beside a torch it was not built for: 5.5 GB, a few minutes, in its own folder.
test-timm: ## test networks of timm in an environment of their own
	$(PYTHON) -m venv .venv-timm
	.venv-timm/bin/python -m pip --disable-pip-version-check --quiet install torch==2.14.1 torchvision==0.29.1 'timm>=1.0'
	.venv-timm/bin/python -m pip --disable-pip-version-check --quiet install -e . pytest jaxtyping beartype
	OMP_NUM_THREADS=1 .venv-timm/bin/python -m pytest tests/formats/test_timm.py

families: $(VENV)/.dev ## analyse a small network of every family that transformers can build (half an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.families --table families.md

fuzz: $(VENV)/.dev ## damage models of every format and open them: make fuzz SECONDS=600
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.hostile.fuzz --seconds $(SECONDS)

check: $(VENV)/.dev ## lint, formatting, the order of the rooms and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy curvlab cli
	@for package in $(PACKAGES); do echo "$(BIN)/mypy $$package" && $(BIN)/mypy "$$package" || exit 1; done

format: $(VENV)/.dev ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure against peers and print ratios
	$(BIN)/python -m benchmarks

# Nothing is installed for it: a machine with a GPU need not have a network. The environment is used where there is one.
gpu: ## test and time everything on a GPU, from the plain tree; says so where there is none
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu

clean: ## remove caches and builds
	rm -rf build dist *.egg-info plugins/*/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV) .venv-timm

# The environment, and in it a stamp for each set of packages: they are installed again when what asks for them changes.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "curvlab needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	@echo "installing curvlab into $(VENV): a few minutes, about 1 GB"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	@echo "installing curvlab, its plugins and the tools of its developers into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[dev]' $(foreach plugin,$(PLUGINS),-e ./$(plugin))
	@$(PIP) install -c constraints.txt --no-deps curvlinops-for-pytorch
	@touch $@ $(VENV)/.core
