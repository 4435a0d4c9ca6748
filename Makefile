# Everything runs in .venv, made from the pinned constraints on first use, with the newest supported Python that starts.
PYTHON ?= $(firstword $(foreach version,3.13 3.12 3.11,$(if $(shell python$(version) --version 2>/dev/null),python$(version))))
BIN := .venv/bin
export KDZOO_DATA ?= $(abspath ../shared/data)

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
SOURCES := kdzoo conf hydra_plugins tests scripts examples docs
# Tests of tensor code, which run with the shapes and types of the annotations checked at every call. Tests of
# compiled code run without these checks, which torch cannot compile.
SHAPES_CHECKED := $(addprefix tests/,functional models distillers kinds dataset_distillation tensor_networks)
COMPILED := compile or mps_runs
# Examples and scripts need no annotations, and use attributes of modules whose types torch does not know. Misspelt names
# and keyword arguments, and a wrong number of arguments, are still errors.
LOOSE_TYPES := --allow-untyped-defs --allow-incomplete-defs --check-untyped-defs --no-warn-unused-ignores \
	$(addprefix --disable-error-code=,arg-type import-not-found import-untyped \
	method-assign misc operator union-attr)

.PHONY: demo test check lint types docs wheel lock audit clean

demo: .make/run  ## train teacher, control and student on embedded digits, five seeds
	$(BIN)/kdzoo

test: .make/dev  ## all tests, those of tensor code with the shapes in the annotations checked
	$(PYTEST) $(SHAPES_CHECKED) -k "not ($(COMPILED))" --jaxtyping-packages=kdzoo,beartype.beartype
	$(PYTEST) $(SHAPES_CHECKED) -k "$(COMPILED)"
	$(PYTEST) tests kdzoo $(addprefix --ignore=,$(SHAPES_CHECKED))

check: .make/dev  ## lint, types, docs and packaging, two of them at a time
	$(MAKE) -j 2 -O lint types docs wheel

lint: .make/dev  ## style, and words that were given up
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/python scripts/check_words.py

types: .make/dev  ## static types
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent $(LOOSE_TYPES) examples scripts

docs: .make/dev
	$(BIN)/python -m sphinx -W -q -b html docs docs/_build

wheel: .make/dev
	bash scripts/check_wheel.sh

lock: .make/dev  ## requirements.lock: every package with the checksums of its files
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml -c constraints.txt $(addprefix --extra ,text sweep tensorboard) --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate -q -o requirements.lock

audit: .make/dev  ## known vulnerabilities of the locked packages; needs the network
	$(BIN)/pip install -q pip-audit
	$(BIN)/pip-audit -r requirements.lock --disable-pip --require-hashes

clean:
	rm -rf .venv .make build dist docs/_build docs/gallery *.egg-info

# What running needs. torch is installed first and by its exact version: a looser request can bring several GB of CUDA
# packages.
.make/run: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "kdzoo needs Python 3.11, 3.12 or 3.13 on the PATH, or make PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/pip install -q -c constraints.txt -e .
	mkdir -p .make && touch $@

# What the tests, the checks and the documentation need in addition.
.make/dev: .make/run
	$(BIN)/pip install -q -c constraints.txt -e ".[dev,sweep,tensorboard,text]"
	touch $@
