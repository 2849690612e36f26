# The Learning Rate. `make` alone lists the targets; each makes .venv first where it is needed.
# PYTHON=python3.12 chooses the interpreter of .venv, CHAPTERS="annealing" the chapters of notebooks and full.

PY = .venv/bin/python
PORT ?= 8000
JOBS ?= auto
PYTEST_ARGS ?=
FULL_ARGS ?=

notebooks_given = $(if $(CHAPTERS),$(foreach c,$(CHAPTERS),book/$(c:book/%=%)$(if $(filter %.ipynb,$(c)),,.ipynb)),$(wildcard book/*.ipynb))

.PHONY: help book pdf notebooks test fix full bench serve clean environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

book: environment ## build the HTML from the stored outputs, strictly, and print the page to open
	@$(PY) tools/build.py

pdf: environment ## the whole book as one page and as a PDF, through Chromium
	@$(PY) tools/pdf.py

notebooks: environment ## execute the chapters at tour scale and store their outputs (CHAPTERS="annealing ...")
	@$(PY) tools/notebooks.py $(notebooks_given)

test: environment ## run every test, doctest and notebook, in parallel over the cores
	@$(PY) -m pytest --nbval -n $(JOBS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

fix: environment ## format and lint everything, notebooks included, and mend what can be mended
	@$(PY) -m ruff check --quiet --fix . ; found=$$?; $(PY) -m ruff format . ; exit $$found

full: environment ## run the chapters at full scale and write data/records (FULL_ARGS="--plan", "--budget 600", ...)
	@$(PY) -m lrlib.records $(FULL_ARGS) $(notebooks_given)

bench: environment ## run the benchmarks, one after the other, beside the peers of requirements-bench.lock
	@$(PY) -m pip --disable-pip-version-check install -q --no-deps -r requirements-bench.lock
	@set -e; for name in engine finder landscape; do echo "== $$name"; $(PY) benchmarks/$$name.py; done

serve: book ## serve the built book on 127.0.0.1 (PORT=8000)
	@echo "http://127.0.0.1:$(PORT)/"
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove .venv, _build and caches
	rm -rf .venv _build .pytest_cache .ruff_cache .mypy_cache .hypothesis lrlib.egg-info .jupyter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -not -path './.git/*' -prune -exec rm -rf {} +

environment:
	@tools/environment.sh
