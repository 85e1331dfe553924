PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test trust slurm lint docs clean

# A dataset, an offline policy, and its fine-tuning with and without the method: about ten minutes on two cores.
run: .venv/.installed
	$(BIN)/python -m experiments.demo

test: .venv/.installed
	$(BIN)/python -m pytest -q --numprocesses=auto --dist=loadfile --no-loadscope-reorder

# Bad input, damaged files, edges of numbers, kills: what `test` does in short, at length. Half an hour on one core.
trust: .venv/.installed
	$(BIN)/python -m pytest -q tests/trust --hypothesis-profile=thorough
	$(BIN)/python tests/kill_runs.py --kills=25

# A study on a real SLURM of this machine alone, whose packages must be there. Ten minutes on two cores.
slurm: .venv/.installed
	$(BIN)/python tests/slurm_node.py

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation, into site/; a warning is an error.
docs: .venv/.docs
	NO_COLOR=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

clean:
	rm -rf site .venv .hypothesis .pytest_cache .mypy_cache .ruff_cache .xla_cache *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last, so that an interrupted installation starts again.
.venv/.installed: requirements.txt setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is not Python 3.11 or newer: install one and call make PYTHON=python3.11 …" >&2; exit 1; }
	@echo "Installing into .venv: once, a few minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-compile --requirement requirements.txt
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# What only the documentation takes.
.venv/.docs: docs/requirements.txt .venv/.installed
	@$(BIN)/python -m pip install --quiet --no-compile --requirement docs/requirements.txt
	@touch $@
