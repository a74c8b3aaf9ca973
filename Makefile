# Everything is installed into .venv; nothing outside this folder is changed, but for a browser where one is missing.
PYTHON ?= python3
BIN := .venv/bin
KERNEL6 := .kernels/ipykernel6
PYTEST := $(BIN)/python -m pytest
NBVAL := $(BIN)/python -m pytest --nbval -p no:cacheprovider

.PHONY: demo test quick check lab kernels browser postgres notebooks oldest faults lake bench clean

demo: .venv/.base  ## a first turn, offline: prints the conversation and the usage table
	@$(BIN)/python notebooks/run.py notebooks/01_first_turn.ipynb

test: check kernels browser postgres  ## everything: lint, types, contracts, tests, notebooks
	$(PYTEST)
	$(MAKE) notebooks oldest lake

quick: .venv/.dev  ## the fast subset: no kernel, no browser, no killed processes, little DuckDB
	$(BIN)/ruff check
	$(PYTEST) -m "not kernel and not browser and not fault and not slow"

check: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: .venv/.dev
	MENTRA_HOME=$$(mktemp -d) $(NBVAL) notebooks

oldest: .venv-oldest/.done  ## the record's tests on the oldest DuckDB and pandas that will do
	PYTHONPATH=.venv-oldest $(PYTEST) tests/record/test_frames.py tests/record/test_chain.py tests/record/test_export.py tests/record/test_plots.py tests/record/test_reports.py tests/record/test_old_versions.py

lab: .venv/.dev  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

faults: .venv/.dev kernels  ## the fault tests, long
	MENTRA_FAULT_SECONDS=120 MENTRA_FAULT_KILLS=500 $(PYTEST) tests/faults --timeout 1200

lake: pyproject.toml  ## the tests of a shared record, on the DuckDB that the extra `lake` pins; needs PostgreSQL
	@test -x .venv-lake/bin/python || $(PYTHON) -m venv .venv-lake
	.venv-lake/bin/pip install -q --disable-pip-version-check -e ".[lake]" anyio hypothesis pytest pytest-timeout
	.venv-lake/bin/python -m pytest tests/record/test_lake.py

bench: .venv/.dev  ## benchmarks, by hand
	for file in tests/benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

kernels: $(KERNEL6)/.done

browser: .venv/.dev
	@$(BIN)/python tests/kits/programs.py browser

postgres: .venv/.dev
	@$(BIN)/python tests/kits/programs.py postgresql

$(KERNEL6)/.done: .venv/.dev
	$(BIN)/pip install -q --no-deps --target $(KERNEL6) "ipykernel<7"
	@touch $@

.venv-oldest/.done: .venv/.dev
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --target .venv-oldest "duckdb==1.5.5" "pandas==2.2.3" "numpy<2.3" pytz
	@touch $@

.venv/.base: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -e . nbclient
	@touch $@

.venv/.dev: .venv/.base
	$(BIN)/pip install -q --disable-pip-version-check -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv .kernels .venv-lake .venv-oldest
