# Two commands do everything on a fresh machine: `make demo` runs the main job, `make test` passes the tests.
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m

.PHONY: demo test prove prove-all lint unit contract crash embedded hosts gallery test-hosts power-cuts bench-deploy bench-servers bench-database bench-backup bench-check clean

demo: $(VENV)/.ready
	$(BIN)/bulletproof demo $(ARGS)

test: lint $(VENV)/.ready-dev
	$(RUN) pytest -n 3 --dist loadgroup --ignore=tests/gallery tests examples/datacharted/tests $(ARGS)

# The proof: planted bugs that it must catch, then faults in real deployments; docs/proof.md tells what came of them.
prove: $(VENV)/.ready-dev
	$(RUN) pytest -n 2 tests/prove
	$(RUN) bulletproof.prove --faults 2000 --minutes 15 --write docs/proof.md $(ARGS)

prove-all: $(VENV)/.ready-dev
	$(RUN) pytest -n 2 tests/prove
	$(RUN) bulletproof.prove --faults 10000 --rounds 200 --write docs/proof.md $(ARGS)

lint: $(VENV)/.ready-dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(BIN)/lint-imports --no-cache

# Each ring of tests alone. The gallery downloads published apps and takes minutes, so it is not part of `make test`.
unit contract crash embedded hosts gallery: $(VENV)/.ready-dev
	$(RUN) pytest tests/$@ $(ARGS)

test-hosts: hosts

# Fifty times the power is cut in the middle of a deployment on a server: a quarter of an hour.
power-cuts: $(VENV)/.ready-dev
	BULLETPROOF_POWER_CUTS=50 $(RUN) pytest tests/hosts/test_boot.py -k power $(ARGS)

bench-deploy: $(VENV)/.ready-dev
	$(RUN) bench.deploy $(ARGS)

# On a booted systemd; needs root and what tools/debian.sh installs.
bench-servers: $(VENV)/.ready-dev
	PYTHONPATH=tests $(RUN) bench.servers $(ARGS)

bench-database: $(VENV)/.ready-dev
	$(RUN) bench.database $(ARGS)

bench-backup: $(VENV)/.ready-dev
	$(RUN) bench.backup $(ARGS)

bench-check: $(VENV)/.ready-dev
	$(RUN) bench.check $(ARGS)

$(VENV)/.ready: pyproject.toml constraints.txt
	python3 -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Bulletproof needs Python 3.11 or newer")'
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check uv -c constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(VENV) -c constraints.txt --editable .
	# Every command, supervisor and relay of the demo and the tests is a new process: compile once, not each time.
	$(RUN) compileall -q src
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready tools/debian.sh
	tools/debian.sh
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(VENV) -c constraints.txt --group dev
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
