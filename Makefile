# Everything a contributor or a first-time user does, one word each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
FOLDERS := $(patsubst %/pyproject.toml,%,$(PLUGINS))

.PHONY: demo test soak fuzz lint install index families science forgetting docs clean

demo: install  ## fine-tune on real images with real weights
	$(BIN)/zoo demo

test: install  ## all tests
	$(BIN)/python -m pytest --numprocesses auto

soak: install  ## kill 200 runs at random, go on from every checkpoint of every way to train, fail every file operation
	SOAK=1 $(BIN)/python -m pytest tests/test_resume.py -k same_bits
	SOAK=1 $(BIN)/python -m pytest tests/test_every_operation.py -rP
	$(BIN)/python tests/soak.py --kills 200

fuzz: install  ## 10,000 random registry and card files (minutes)
	$(BIN)/python tests/attacks/fuzz.py

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed  ## the virtual environment, with core and plugins from this checkout

$(VENV)/.installed: pyproject.toml $(PLUGINS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo,demo-text,dev,hub]' $(addprefix --editable ./,$(FOLDERS))
	touch $@

index: install  ## generate the plugins' cards and registry.json again
	$(BIN)/python plugins/make_cards.py

families: install  ## cut every model family at every depth and compare with the whole (long)
	$(BIN)/python benchmarks/families.py --update

science: install  ## how deep to retrain, measured: an hour on two cores, goes on where it stopped
	$(BIN)/python benchmarks/science.py

docs: install  ## the documentation site in build/site, warnings as errors, links checked
	$(BIN)/python -m mkdocs build --strict

forgetting: install  ## what the old task loses, measured: about 20 minutes on two cores, goes on where it stopped
	$(BIN)/python benchmarks/forgetting.py
	$(BIN)/python benchmarks/ledgers.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build
