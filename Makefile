# make demo: upscale a photograph, paint a grid.  make test: the tests.  make check: lint, types, layers.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PAINT = $(BIN)/limner generate --file examples/prompts.txt -n 4 --seed 1 --grid --out out/icons.png --overwrite

.PHONY: demo test test-slow check bench docs wheel zoo clean

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	$(PIP) -e .
	touch $@

# torch first and alone: any other order may pull the GPU build.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch==2.13.0
	$(PIP) -e ".[dev]"
	touch $@ $(VENV)/.base

demo: $(VENV)/.base
	$(BIN)/limner upscale examples/strawberries.jpg --out out/strawberries-x4.png --overwrite
	@if [ -e src/limner/zoo/icons/manifest.json ]; then $(PAINT); fi

test: $(VENV)/.dev
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest

test-slow: $(VENV)/.dev
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -m slow --timeout 3600

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(VENV)/.base
	$(BIN)/limner bench

docs: $(VENV)/.dev
	$(BIN)/python -m limner.cli.docs docs/cli.md

# For this platform; LIMNER_NO_KERNELS=1 make wheel: for any, without kernels. Installed anew, where nothing compiles.
wheel: | $(VENV)/bin/python
	rm -rf build dist out/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv out/wheel
	CC=false CXX=false out/wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/limner-*.whl
	out/wheel/bin/limner info --engines
	out/wheel/bin/limner upscale examples/strawberries.jpg -o out/wheel/strawberries-x4.png
	ls -l dist

clean:
	rm -rf $(VENV) out build dist
