# make demo      five minutes on real files, in a new folder
# make test      the whole test suite
# make check     what a change needs before it is committed: format, lint, types, layers
# make campaign  the long forms of fuzzing, simulation and crashes: hours; what was reached goes on from there
#
# Each builds its own environment: with uv when it is there, else with python -m venv and pip.
#   make test PYTHON=python3.13     another interpreter, in an environment of its own
#   make demo FILES="scan.nii.gz …" the demo on your own files
#   make test WORKERS=0             one test after the other, in one process
#   make test STATUS=FILE           says in FILE how pytest ended when it failed; make itself always says 2

ifdef PYTHON
VENV ?= .venv-$(notdir $(PYTHON))
else
VENV ?= .venv
endif
export PYTHON
# Compiled modules are kept whatever the environment says: three workers and thousands of processes read them.
unexport PYTHONDONTWRITEBYTECODE
PYTEST_OPTIONS ?=
# Two more than there are cores: many tests wait for another process, and three workers left a quarter of two cores idle.
WORKERS ?= $(shell expr 2 + $$(nproc))

BIN = $(VENV)/bin
STAMP = $(VENV)/.complete

.PHONY: demo test check campaign docs lock environment clean

demo: $(STAMP)
	$(BIN)/glimmer-store demo $(FILES)

test: $(STAMP)
	@$(if $(STATUS),rm -f "$(STATUS)")
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_OPTIONS) \
	    || { status=$$?; $(if $(STATUS),echo $$status >"$(STATUS)";) exit $$status; }

# Of these CI has heard before: they are part of the tests.
LAYERS ?= tests/test_layers.py tests/test_exports.py
check: $(STAMP)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/mypy
	$(if $(LAYERS),$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(LAYERS))

# Reports with figures, seeds and dates: tests/fuzz/report.json, tests/simulation/report.json.
MINUTES ?= 120
campaign: $(STAMP)
	nice $(BIN)/python -m tests.fuzz --inputs 1000000 --slice 60 --json tests/fuzz/report.json
	nice $(BIN)/python -m tests.simulation --minutes $(MINUTES) --first 5000000 --go-on --keep --json tests/simulation/report.json
	nice $(BIN)/python -m pytest --campaign tests/crash tests/interop/test_branch_beside_git_annex.py tests/requirements

docs: $(STAMP)
	$(BIN)/python docs/generate.py

environment: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/environment
	.ci/environment $(VENV) "$(PYTHON)"

# Fresh pins for the tools and everything below them; needs uv.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links --upgrade --output-file constraints.txt pyproject.toml

clean:
	rm -rf .venv* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
