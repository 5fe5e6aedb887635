# Two commands on a fresh machine:  make replicate   and   make test
PROFILE ?= digits
# A part of the pipeline, such as GOAL=runs/cpu/attack-mnist-lenet5-0-seed0.ipynb; all of it by default
GOAL ?=
# Jobs at a time on the GPU, or GPUs; and trainings side by side in one such job, sharing the card: small networks leave most of
# one idle. Both have yet to be measured against one at a time for minutes (results/benchmarks/README.md); GPUS=2: two jobs, on the first GPU
GPUS ?= 1
AT_ONCE ?= 1
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Oracles of the tests and rivals in the benchmarks. Without their dependencies: torchattacks alone would downgrade requests.
PEERS := torchattacks adv-lib adversarial-robustness-toolbox

# The pipeline and papermill find the environment's programs first, and matplotlib needs no display.
export PATH := $(abspath $(BIN)):$(PATH)
export MPLBACKEND := Agg
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: help setup replicate test results notebooks bench clean

help:
	@echo "make replicate [PROFILE=digits|cpu|full] [CORES=n] [GPUS=n AT_ONCE=n] [GOAL=file]   train, attack, tables, figures, report"
	@echo "make test        ruff, mypy, pytest, nbval over every notebook"
	@echo "make results     copy the records of PROFILE's tables from runs/ to results/, and print the tables there"
	@echo "make notebooks   run every notebook with its defaults and write its outputs back"
	@echo "make bench       attacks side by side with their peers; training beside a plain loop (downloads MNIST and CIFAR-10)"

setup: $(READY)

# One source of versions: pyproject.toml says what is needed, constraints.txt pins it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("isce needs Python 3.11 to 3.13: make setup PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); false; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(PEERS)
	touch $@

# --nolock: a kill leaves a stale lock behind, and two runs of the same job are kept apart by isce's own locks.
replicate: setup
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) --config profile=$(PROFILE) at_once=$(AT_ONCE) --nolock --rerun-incomplete \
	  --rerun-triggers mtime params --keep-going --quiet rules -- $(GOAL)
	@test -n "$(GOAL)" || echo "The report: $${ISCE_RUNS:-runs}/$(PROFILE)/report.html"

# One thread for each of the parallel workers: more would only fight over the cores.
test: export OMP_NUM_THREADS := 1
test: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/pytest -n $(CORES) --dist loadfile
	runs=$$(mktemp -d) && ISCE_RUNS=$$runs $(BIN)/pytest --nbval notebooks -n $(CORES) --dist loadscope; status=$$?; rm -rf $$runs; exit $$status

results: setup
	$(BIN)/python -c "from isce.publish import publish; print('\n'.join(publish('$(PROFILE)')))"
	ISCE_RUNS=$$(mktemp -du) $(BIN)/python -c "from pathlib import Path; from isce.publish import update_readme, write; write('$(PROFILE)'); \
	  [update_readme('$(PROFILE)', Path(p)) for p in ('README.md', 'results/README.md')]"

notebooks: setup
	$(BIN)/python notebooks/refresh.py

bench: setup
	$(BIN)/python benchmarks/attacks.py
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf runs .snakemake .pytest_cache .mypy_cache .ruff_cache
