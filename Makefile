# Everything runs in .venv, made from the pinned constraints on first use.
PYTHON ?= python3.11
BIN := .venv/bin
export KDZOO_DATA ?= $(abspath ../shared/data)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
SOURCES := kdzoo conf tests scripts examples docs
# Tests of tensor code, which run with the shapes and types of the annotations checked at every call. Tests of
# compiled code run without these checks, which torch cannot compile.
SHAPES_CHECKED := $(addprefix tests/,functional models distillers kinds dataset_distillation tensor_networks)
COMPILED := compile or mps_runs
# Examples and scripts need no annotations, and use attributes of modules whose types torch does not know. Misspelt names
# and keyword arguments, and a wrong number of arguments, are still errors.
LOOSE_TYPES := --allow-untyped-defs --allow-incomplete-defs --check-untyped-defs --no-warn-unused-ignores \
	$(addprefix --disable-error-code=,arg-type import-not-found import-untyped \
	method-assign misc operator union-attr)

.PHONY: demo test check lint types docs wheel clean

demo: .make/env  ## train teacher, control and student on embedded digits, five seeds
	$(BIN)/kdzoo

test: .make/env  ## all tests, those of tensor code with the shapes in the annotations checked
	$(PYTEST) $(SHAPES_CHECKED) -k "not ($(COMPILED))" --jaxtyping-packages=kdzoo,beartype.beartype
	$(PYTEST) $(SHAPES_CHECKED) -k "$(COMPILED)"
	$(PYTEST) tests kdzoo $(addprefix --ignore=,$(SHAPES_CHECKED))

check: lint types docs wheel  ## lint, types, docs and packaging

lint: .make/env  ## style, and words that were given up
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python scripts/check_words.py

types: .make/env  ## static types
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent $(LOOSE_TYPES) examples scripts

docs: .make/env
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

wheel: .make/env
	bash scripts/check_wheel.sh

clean:
	rm -rf .venv .make build dist docs/_build *.egg-info

# torch is installed first and by its exact version: a looser request can bring several GB of CUDA packages.
.make/env: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,sweep,tensorboard,text]"
	mkdir -p .make && touch $@
