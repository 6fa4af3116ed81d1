# Assay. `make demo` shows the whole line; `make test` runs the tests. Both set up what they need first.
PYTHON ?= python3.11
BIN := .venv/bin
# Where this is set, every process compiles torch, vLLM and Dagster again before it starts.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo loop test drills up down lint clean
help:
	@echo "make demo    take the product billing-assistant from raw data to a served answer"
	@echo "make loop    after the demo: traffic changes, the line retrains and promotes by itself but for one signature"
	@echo "make test    lint, types, import directions and all tests"
	@echo "make drills  the long drills: kill, tamper and swap under load"
	@echo "make up      start the standing system; make down stops it; $(BIN)/assay status tells"

setup:
	@command -v $(PYTHON) >/dev/null || { echo "Assay needs Python 3.11 as '$(PYTHON)': install it, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) scripts/setup.py

demo: setup
	@$(BIN)/python -m pipelines.demo

loop: setup
	@$(BIN)/python -m pipelines.loop

test: setup lint
	@$(BIN)/python -m pytest -m "not drill" -n 2 --dist loadfile

drills: setup
	@$(BIN)/python -m pytest -m drill -s

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

up: setup
	@$(BIN)/assay up

down:
	@$(BIN)/assay down

clean: down
	rm -rf .assay .assay-trust
