# `make demo` and `make test` need Python 3.11 or later, pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROJECTS := asyncapy_core asyncapy_codecs asyncapy_filters $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml)) .
COMMA := ,
# The modules whose branch coverage may not fall below 98 %.
COVERED := keys/* plugins/namespace $(addprefix protocol/,detection encoding frames kinds numbered stream wire) routing/* storage
COVERED := $(subst $() $(),$(COMMA),$(COVERED:%=*/asyncapy_core/%.py) */asyncapy_filters/*)

.PHONY: demo test floors lint docs format bench bench-quick bench-keys bench-cluster profile fuzz soak fleet legacy web mutants version changelog dist clean

$(VENV)/.installed: constraints.txt $(addsuffix /pyproject.toml,$(PROJECTS))
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "AsyncAPY needs Python 3.11 or later; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation $(addprefix --editable ./,$(PROJECTS))
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# WORKERS processes run tests, one for each core unless told otherwise; one process runs all tests of a file.
WORKERS ?= auto
test: $(VENV)/.installed
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@echo 'Branch coverage of the modules that decide which packets pass:'
	$(BIN)/coverage report --include='$(COVERED)' --fail-under=98

# An environment with the oldest allowed release of each dependency; then some releases of click, whose options change often.
CLICKS ?= 8.1.8 8.2.2 8.3.0 8.3.1
$(VENV)-floors/.installed: tools/floors.py $(addsuffix /pyproject.toml,$(PROJECTS))
	$(PYTHON) -m venv $(VENV)-floors
	$(VENV)-floors/bin/python -m pip install --quiet --upgrade pip packaging
	$(VENV)-floors/bin/python tools/floors.py > $(VENV)-floors/floors.txt
	$(VENV)-floors/bin/python -m pip install --quiet --requirement $(VENV)-floors/floors.txt --group test
	$(VENV)-floors/bin/python -m pip install --quiet --no-build-isolation $(addprefix --editable ./,$(PROJECTS))
	touch $@

floors: $(VENV)-floors/.installed
	$(VENV)-floors/bin/python -m pip install --quiet --requirement $(VENV)-floors/floors.txt
	$(VENV)-floors/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	    --ignore tests/core/test_architecture.py tests/codecs tests/core tests/filters tests/plugins tests/system tests/testing
	for release in $(CLICKS); do \
	    $(VENV)-floors/bin/python -m pip install --quiet click==$$release || exit 1; \
	    $(VENV)-floors/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder \
	        tests/plugins/test_cli_*.py tests/core/plugins/test_cli_*.py || exit 1; \
	done

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 asyncapy asyncapy_*/src plugins/*/src
	$(BIN)/lint-imports
	$(BIN)/python tools/set_version.py --check
	$(BIN)/towncrier build --draft --version 0 >/dev/null
	$(BIN)/python tools/prose.py --check

# `make version` copies the version of asyncapy_core; `make version VERSION=0.6.0` sets it first.
version: $(VENV)/.installed
	$(BIN)/python tools/set_version.py $(VERSION)

# What towncrier would write into CHANGELOG.md from the fragments in changes/.
changelog: $(VENV)/.installed
	$(BIN)/towncrier build --draft --version "$$($(BIN)/python tools/set_version.py --print)"

# A source distribution of each project, and a wheel that is built from it.
dist: $(VENV)/.installed
	rm -rf dist
	for project in $(PROJECTS); do \
	    $(BIN)/python -m build --no-isolation --outdir dist $$project || exit 1; \
	done
	$(BIN)/twine check --strict dist/*

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

# The site is docs/_build/html/index.html; a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --fresh-env --quiet --builder html docs docs/_build/html

$(VENV)-bench/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --requirement benchmarks/requirements.txt
	touch $@

bench: $(VENV)/.installed $(VENV)-bench/.installed
	$(BIN)/python benchmarks/bench.py --peers-python $(VENV)-bench/bin/python

bench-quick: $(VENV)/.installed
	$(BIN)/python benchmarks/bench.py --quick

profile: $(VENV)/.installed $(VENV)-bench/.installed
	$(BIN)/python benchmarks/profiling.py --py-spy $(VENV)-bench/bin/py-spy

SECONDS ?= 60
$(VENV)/.fuzz: $(VENV)/.installed tests/fuzz/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement tests/fuzz/requirements.txt
	touch $@

fuzz: $(VENV)/.fuzz
	mkdir -p .fuzz
	for target in config frames json numbered proxy tls ziproto; do \
	    mkdir -p .fuzz/$$target; \
	    PYTHONPATH=tests $(BIN)/python tests/fuzz/fuzz.py $$target .fuzz/$$target -max_total_time=$(SECONDS) -max_len=400 \
	        -print_final_stats=1 || exit 1; \
	done
	mkdir -p .fuzz/costs
	$(BIN)/python tests/fuzz/costs.py .fuzz/costs $(SECONDS)

# An environment of its own, as mutmut brings much that nothing else needs.
$(VENV)-mutants/.installed: constraints.txt tests/mutants/requirements.txt $(addsuffix /pyproject.toml,$(PROJECTS))
	$(PYTHON) -m venv $(VENV)-mutants
	$(VENV)-mutants/bin/python -m pip install --quiet --upgrade --constraint constraints.txt pip
	$(VENV)-mutants/bin/python -m pip install --quiet --constraint constraints.txt --group dev \
	    --requirement tests/mutants/requirements.txt
	$(VENV)-mutants/bin/python -m pip install --quiet --constraint constraints.txt --no-build-isolation \
	    $(addprefix --editable ./,$(PROJECTS))
	touch $@

mutants: $(VENV)-mutants/.installed
	$(VENV)-mutants/bin/python tests/mutants/flatten.py .mutants
	cd .mutants && $(abspath $(VENV)-mutants)/bin/mutmut run
	$(VENV)-mutants/bin/python tests/mutants/report.py .mutants

MINUTES ?= 5
PROTOCOL ?= 22
soak: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python tests/soak/soak.py --minutes $(MINUTES) --version $(PROTOCOL)

RESTARTS ?= 6
fleet: $(VENV)/.installed
	PYTHONPATH=tests $(BIN)/python tests/fleet/fleet.py --restarts $(RESTARTS)

# AsyncAPY 0.5 itself, from its repository, or from a copy of that: `make legacy LEGACY=../AsyncAPY`. It is not on PyPI.
LEGACY ?= git+https://github.com/nocturn9x/AsyncAPY@ce315f290384079a444c2594ba6eaaf54015d3fb
$(VENV)-legacy/.installed:
	$(PYTHON) -m venv $(VENV)-legacy
	$(VENV)-legacy/bin/python -m pip install --quiet trio ziproto $(LEGACY)
	touch $@

legacy: $(VENV)/.installed $(VENV)-legacy/.installed
	LEGACY_PYTHON=$(VENV)-legacy/bin/python $(BIN)/python -m pytest tests/legacy

# It needs node 18 or later and npm; the packages are those of tests/web/package.json, in exact versions, and not of a lock
# file, as that would name the index. Their scripts are not run.
WEB := .web
$(WEB)/.installed: tests/web/package.json
	mkdir -p $(WEB)
	cp tests/web/package.json $(WEB)
	npm install --prefix $(WEB) --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

web: $(VENV)/.installed $(WEB)/.installed
	WEB=$(WEB) $(BIN)/python -m pytest tests/web/web_checks.py

bench-keys: $(VENV)/.installed
	$(BIN)/python benchmarks/keys.py
	$(BIN)/python benchmarks/attacked.py

bench-cluster: $(VENV)/.installed
	$(BIN)/python benchmarks/cluster_keys.py

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-floors $(VENV)-mutants $(VENV)-legacy $(WEB) .nox dist docs/_build docs/generated .fuzz .mutants .coverage .coverage.* .hypothesis \
	    .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
