# Every target works on a fresh machine: what it needs is installed into .venv first.
PYTHON ?= python3
BIN := .venv/bin
# One thread each and no spinning: several torch processes share few cores in the tests.
export OMP_WAIT_POLICY := passive
# Large pages for all, as for `braintorrent run`.
export GLIBC_TUNABLES := glibc.malloc.hugetlb=1
# Hundreds of processes of the same code, which are compiled once.
unexport PYTHONDONTWRITEBYTECODE
TEST_ENV := OMP_NUM_THREADS=1

.PHONY: setup demo test lint bench soak poisoned paper scenarios clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,dev,fuzz]'
	touch $@

demo: setup
	$(BIN)/braintorrent demo --out out/demo

# Four at a time on two cores: most tests wait for processes and clocks. In the order of tests/conftest.py.
test: setup
	$(TEST_ENV) $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/python -m benchmarks

soak: setup
	$(TEST_ENV) $(BIN)/python -m pytest -m soak --timeout 7200

# Two of eight labs attack: what merges and gates bear. DATA is a data folder with labels.
poisoned: setup
	$(TEST_ENV) $(BIN)/python -m braintorrent.experiments.poisoned $(DATA) out/poisoned

# The table of Roy et al. over 5 to 20 labs; goes on where it was interrupted. ARGS="--labs 5 --seeds 0" for less.
paper: setup
	$(TEST_ENV) $(BIN)/python -m braintorrent.experiments.paper $(DATA) out/paper $(ARGS)

# Each story of churn with five seeds, in virtual time; then see out/scenarios/index.html.
scenarios: setup
	$(TEST_ENV) $(BIN)/braintorrent simulate scenarios/*.py --seeds 5 --workers 2 --out out/scenarios

clean:
	rm -rf .venv out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
