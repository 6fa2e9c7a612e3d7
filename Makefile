# Everything a fresh machine needs is Python 3.11 or newer and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PEERS  ?= .venv-peers
# For make bench, such as BENCH='--only=networks,metrics --quick --out=tried'.
BENCH  ?=

.PHONY: demo test soak lint types bench docs clean

demo: $(VENV)/ready  ## the main job on the semi-synthetic collection
	$(BIN)/python -m jaxfer.launch --config=configs/demo.py

test: $(VENV)/ready  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

soak: $(VENV)/ready  ## kills a toy run 100 times; every ending must be identical
	$(BIN)/python -m tests.faults.soak

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

bench: $(VENV)/ready $(PEERS)/ready  ## speed and memory, side by side; writes docs/performance.md
	$(BIN)/python benchmarks/run.py --peers=$(PEERS)/bin/python $(BENCH)
	$(BIN)/python docs/make_performance.py

$(PEERS)/ready: benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	touch $@

$(VENV)/ready: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

docs: $(VENV)/ready  ## the pages that are made from the code
	$(BIN)/python docs/make_metrics.py

clean:
	rm -rf $(VENV) $(PEERS) build dist jaxfer.egg-info
