# Everything a fresh machine needs is Python 3.11 or newer and make.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PEERS  ?= .venv-peers

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

bench: $(VENV)/ready  ## speed, beside PyTorch, MONAI, POT and gzip too; writes docs/performance.md
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/step_profile.py
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement benchmarks/requirements.txt
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/side_by_side.py --peers=$(PEERS)/bin/python --threads=1
	$(BIN)/python benchmarks/side_by_side.py --peers=$(PEERS)/bin/python
	$(BIN)/python docs/make_performance.py

$(VENV)/ready: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

docs: $(VENV)/ready  ## the pages that are made from the code
	$(BIN)/python docs/make_metrics.py

clean:
	rm -rf $(VENV) $(PEERS) build dist jaxfer.egg-info
