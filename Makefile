# Everything a contributor or a first-time user does, one word each.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PLUGINS := $(wildcard plugins/*/pyproject.toml)
# The frameworks that benchmarks/ compares with have an environment of their own, which takes torch from ours.
PEERS := .venv-bench
SITE := import sysconfig; print(sysconfig.get_path('purelib'))
FOLDERS := $(patsubst %/pyproject.toml,%,$(PLUGINS))

.PHONY: demo test soak fuzz attacks lint install index families science forgetting docs bench bench-quick clean

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

attacks: install  ## every hostile input against every command (minutes), and 10,000 random files for every reader
	$(BIN)/python -m pytest tests/test_attacks.py -k registry
	$(BIN)/python tests/attacks/beyond.py
	$(BIN)/python tests/readers.py

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

bench: install $(PEERS)/.installed  ## this engine beside the loops people write: half an hour on two quiet cores
	$(BIN)/python benchmarks/bench.py

bench-quick: install  ## the same on few images and without the frameworks, under ten minutes; writes nothing
	$(BIN)/python benchmarks/bench.py --quick

$(PEERS)/.installed: benchmarks/peers/requirements.txt
	$(BIN)/python -m venv $(PEERS)
	$(BIN)/python -c "$(SITE)" > "$$($(PEERS)/bin/python -c "$(SITE)")/torch-of-the-core.pth"
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) .pytest_cache .mypy_cache .ruff_cache build
