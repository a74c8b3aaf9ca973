# Everything is installed into this folder. Only a missing browser, PostgreSQL or library of
# the sandbox is installed in the system, by `test`.
PYTHON ?= python3
BIN := .venv/bin
KERNELS := 6 7.0 7.1 7.2 7.3
PYTEST := $(BIN)/python -m pytest
NBVAL := $(BIN)/python -m pytest --nbval -p no:cacheprovider

.PHONY: demo test quick check types lab kernels browser postgres mcp sandbox pyodide notebooks oldest faults lake bench page pictures clean

demo: .venv/.base  ## run a first turn offline: prints the conversation and the usage table
	@$(BIN)/python notebooks/run.py notebooks/01_first_turn.ipynb

test: check kernels browser postgres mcp sandbox pyodide  ## run everything: lint, types, import contracts, tests, notebooks
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder
	$(MAKE) -j2 --output-sync=target lake notebooks oldest

quick: .venv/.dev  ## run the fast tests, within 60 s of CPU: no kernels, browsers, killed processes, PostgreSQL
	$(BIN)/ruff check
	$(PYTEST) -m "not kernel and not browser and not fault and not slow"

check: types  ## run the linters and type checkers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: .venv/.dev  ## check types strictly, then as an editor does: no error, and 99 % of the public symbols typed
	$(BIN)/mypy
	$(BIN)/python tests/kits/editor_types.py 99

notebooks: .venv/.dev  ## run the notebooks and compare their outputs
	MENTRA_HOME=$$(mktemp -d) $(NBVAL) notebooks

oldest: .venv-oldest/.done  ## run the tests of frames and names on the oldest supported DuckDB and pandas
	PYTHONPATH=.venv-oldest $(PYTEST) tests/record/test_frames.py tests/record/test_chain.py tests/record/test_export.py tests/record/test_reports.py tests/record/test_old_versions.py tests/namespace -n 2 --dist loadfile -k "not hostile and not spreadsheet and not says_why and not by_id_or_name and not random_edits"

lab: .venv/.dev  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

faults: .venv/.dev kernels  ## run the fault tests in their long form
	MENTRA_FAULT_SECONDS=120 MENTRA_FAULT_KILLS=500 MENTRA_FAULT_EFFECTS=1000 MENTRA_FAULT_ANSWERS=1000 MENTRA_FAULT_BUDGETS=1000 MENTRA_FAULT_ROWS=10000 MENTRA_FAULT_TURNS=2000 MENTRA_FAULT_SPELLINGS=20000 MENTRA_HOSTILE=apart MENTRA_CARD=all $(PYTEST) tests/faults tests/browser/test_hostile_places.py tests/browser/test_card_paths.py tests/browser/test_flow.py tests/permission/test_denied_lines.py tests/permission/test_suggesting.py tests/chat/test_exit.py tests/effect tests/sandbox --timeout 1200

lake: pyproject.toml  ## run the tests of a shared record on the DuckDB of the extra `lake`; needs PostgreSQL
	@test -x .venv-lake/bin/python || $(PYTHON) -m venv .venv-lake
	.venv-lake/bin/pip install -q --disable-pip-version-check -e ".[lake]" anyio hypothesis pytest pytest-timeout
	.venv-lake/bin/python -m pytest tests/record/test_lake.py

bench: .venv/.dev  ## run the benchmarks
	for file in tests/benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

page: pyodide  ## build the static page that shows a turn in a browser, into build/page
	$(BIN)/python tests/kits/page.py build/page

pictures: browser  ## make the picture of the README anew, in JupyterLab
	$(BIN)/python tests/kits/pictures.py

kernels: $(KERNELS:%=.kernels/ipykernel%/.done)

browser: .venv/.dev
	@$(BIN)/python tests/kits/programs.py browser

postgres: .venv/.dev
	@$(BIN)/python tests/kits/programs.py postgresql

mcp: .venv/.dev
	@$(BIN)/python tests/kits/programs.py mcp

pyodide: mcp
	@$(BIN)/python tests/kits/programs.py pyodide

sandbox: .venv/.dev
	@$(BIN)/python tests/kits/programs.py sandbox

.kernels/ipykernel%/.done: .venv/.dev
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --target $(@D) "ipykernel==$*.*"
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
	rm -rf .venv .kernels .node .venv-lake .venv-oldest
