# Everything runs in .venv, made from the pinned constraints on first use.
PYTHON ?= python3.11
BIN := .venv/bin
export KDZOO_DATA ?= $(abspath ../shared/data)

SOURCES := kdzoo conf tests scripts examples docs
# Examples and scripts need no annotations, and use attributes of modules whose types torch does not know. Misspelt names,
# wrong imports and wrong arguments are still errors.
LOOSE_TYPES := --allow-untyped-defs --allow-incomplete-defs --check-untyped-defs --no-warn-unused-ignores \
	$(addprefix --disable-error-code=,arg-type import-not-found import-untyped \
	method-assign misc operator union-attr)

.PHONY: demo test check lint types docs wheel clean

demo: .make/env  ## train teacher, control and student on embedded digits, five seeds
	$(BIN)/kdzoo

test: .make/env  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: lint types docs wheel  ## lint, types, docs and packaging

lint: .make/env  ## style, and words that were given up
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python scripts/check_words.py

types: .make/env  ## static types, then the shapes in the annotations while tests run
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent $(LOOSE_TYPES) examples scripts
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/functional tests/models tests/distillers tests/kinds tests/dataset_distillation \
		tests/tensor_networks --jaxtyping-packages=kdzoo,beartype.beartype -k "not compile and not mps_runs"

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
