# Two commands on a fresh machine:  make replicate   and   make test
PROFILE ?= digits
# A part of the pipeline, such as GOAL=runs/cpu/attack-mnist-lenet5-0-seed0.ipynb; all of it by default
GOAL ?=
# Jobs at a time on the GPU, or GPUs; and trainings side by side in one such job, sharing the card: small networks leave most of
# one idle. Both have yet to be measured against one at a time for minutes (results/benchmarks/README.md); GPUS=2: two jobs, on the first GPU
GPUS ?= 1
AT_ONCE ?= 1
DEVICE ?= auto
# Snakemake's own flags, such as FLAGS="--executor slurm --jobs 20"
FLAGS ?=
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu)
PYTHON ?= python3
VENV ?= .venv
ifneq ($(words $(VENV)),1)
$(error VENV must be one path without spaces, got "$(VENV)": activate an environment first, or leave VENV away)
endif
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
	@echo "make replicate [PROFILE=digits|cpu|full] [CORES=n] [GPUS=n AT_ONCE=n] [DEVICE=cuda] [GOAL=file] [FLAGS=...]   train, attack, tables, figures, report"
	@echo "make test        ruff, mypy, pytest, nbval over every notebook"
	@echo "make setup       the environment alone, which every other target makes first"
	@echo "make results PROFILE=cpu|full   copy the records of the profile's tables from runs/ to results/, and print the tables there"
	@echo "make notebooks   run every notebook with its defaults and write its outputs back"
	@echo "make bench       attacks side by side with their peers; training beside a plain loop (downloads MNIST and CIFAR-10)"
	@echo "make clean       take caches away; runs/ and data/ stay"

setup: $(READY)

# One source of versions: pyproject.toml says what is needed, constraints.txt pins it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) or sys.exit("isce needs Python 3.11 to 3.13: make setup PYTHON=python3.12")'
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || { \
	  if test -e $(VENV) && ! test -f $(VENV)/pyvenv.cfg; then echo "$(VENV) is there, but no environment with pip: name another with VENV=" >&2; exit 1; fi; \
	  new=$$(test -e $(VENV) || echo yes); test -e $(BIN)/python || rm -f $(BIN)/python*; \
	  echo "$(PYTHON) -m venv $(VENV)"; $(PYTHON) -m venv $(VENV) || { test -z "$$new" || rm -rf $(VENV); exit 1; }; }
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps $(PEERS)
	touch $@

# glibc hands freed activations back to the kernel and maps them anew in every pass. Kept, and in huge pages, they cost a CPU a
# quarter less time in training, a tenth less in attacks.
replicate bench: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=8000000000

# --nolock: a kill leaves a stale lock behind, and of two runs of the same job one waits for the other's records.
replicate: setup
	$(BIN)/snakemake --cores $(CORES) --resources gpu=$(GPUS) --config profile=$(PROFILE) device=$(DEVICE) at_once=$(AT_ONCE) --nolock --rerun-incomplete \
	  --rerun-triggers mtime params --keep-going --quiet rules $(FLAGS) -- $(GOAL)
	@test -n "$(GOAL)" || echo "The report: $${ISCE_RUNS:-runs}/$(PROFILE)/report.html"

# One thread for each of the parallel workers: more would only fight over the cores.
test: export OMP_NUM_THREADS := 1
test: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(BIN)/pytest -n $(CORES) --dist loadfile
	runs=$$(mktemp -d) && ISCE_RUNS="$$runs" $(BIN)/pytest --nbval notebooks -n $(CORES) --dist loadscope; status=$$?; rm -rf "$$runs"; exit $$status

results: setup
	$(BIN)/python -m isce.publish $(PROFILE)

notebooks: setup
	$(BIN)/python notebooks/refresh.py

bench: setup
	$(BIN)/python benchmarks/attacks.py
	$(BIN)/python benchmarks/training.py

clean:
	rm -rf .pytest_cache .mypy_cache .ruff_cache
