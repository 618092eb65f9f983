# Two ways in: `make demo` and `make test`. Each sets up what it needs in .venv, and only when something changed.
# While you work: `make quick`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
SERVICES_STAMP := $(VENV)/.installed-services

.PHONY: demo test quick test-services lint types docs leaderboard leaderboard-check check format clean

demo: $(STAMP)
	$(BIN)/python -m suite.run --gin gin/quickstart.gin

test: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# The tests that take no time, for between two edits; `make test` before a commit.
quick: $(TEST_STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow and not services"

# Tracking against a real MLflow server on a real PostgreSQL, and tables on a real Slurm; root gets both from Debian if
# they are missing. Without Slurm its tests are skipped.
test-services: $(SERVICES_STAMP)
	@ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null || \
		{ test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -qq -y postgresql > /dev/null; } || \
		{ echo "PostgreSQL is needed: apt-get install postgresql, as root" >&2; exit 1; }
	@command -v slurmctld > /dev/null || \
		{ test "$$(id -u)" = 0 && apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null; } || \
		echo "No Slurm, so it is not tested: apt-get install slurm-wlm munge, as root" >&2
	$(BIN)/python -m pytest -m services

# What CI runs beside the tests.
lint: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TEST_STAMP)
	$(BIN)/mypy

# The documentation as a site, with the leaderboard inside: open site/index.html. Any warning or dead link fails.
docs: $(TEST_STAMP)
	$(BIN)/python -m tools.docs --out site

# The leaderboard's pages alone, and the tables in leaderboard/README.md.
leaderboard: $(STAMP)
	$(BIN)/python -m leaderboard.build --out site/leaderboard

leaderboard-check: $(STAMP)
	$(BIN)/python -m leaderboard.build --check

check: lint types leaderboard-check docs test

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(TEST_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $(STAMP) $@

$(SERVICES_STAMP): $(TEST_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check psycopg2-binary
	touch $@

clean:
	rm -rf $(VENV)
