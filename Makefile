# Each target does all its own set-up. The environment is made once and again whenever the project file changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test fast lint bench simulate clean

demo: $(READY)
	$(BIN)/python scripts/demo.py

# One thread for each of two test processes: more would only wait for each other. With STILLHOUSE_RAY_TESTS=1 in the
# environment some minutes more of Ray, with STILLHOUSE_ROOT_TESTS=1 (as root) a cut network.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

fast: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not gpu and not ray"

lint: $(READY)
	$(BIN)/ruff check stillhouse tests benchmarks scripts
	$(BIN)/ruff format --check stillhouse tests benchmarks scripts
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m benchmarks.run_all

# Histories of elastic fleets on a virtual clock, invariants looked at after every event: about a quarter of an hour.
simulate: $(READY)
	$(BIN)/python -m stillhouse.runtime.simulated.simulation 20000

# Runs and labels stay: nights of work may be in them.
clean:
	rm -rf $(VENV) runs/demo* build dist *.egg-info

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[vision,onnx,bench,ray,dev]"
	touch $@
