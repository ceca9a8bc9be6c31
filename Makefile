# Everything runs in .venv, which the first target that needs it makes; nothing but python3, make and pip has to be there.
#   make PYTHON=python3.12 ...     another interpreter
#   make CONSTRAINTS= ...          the newest allowed versions instead of the tested ones
#   make VENV=.venv-bench EXTRAS=bench CONSTRAINTS= benchmark-loader     with all peers, in an environment of its own
PYTHON      ?= python3
CONSTRAINTS ?= constraints.txt
VENV        := .venv
BIN         := $(VENV)/bin
STAMP       := $(VENV)/.installed
EXTRAS      ?= dev
# Tests run in so many processes; each imports torch, so that many more than this take longer to begin than they save.
JOBS        ?= $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); echo $$((cores < 8 ? cores : 8)))
PARALLEL    := -n $(JOBS) --dist worksteal
SHARDS      ?=
SOURCE      ?=

.PHONY: help setup check format test test-slow test-gpu demo benchmark-loader benchmark-prep benchmark-codecs benchmark-epoch benchmark-gpu experiments clean
.DEFAULT_GOAL := help

help:            ## what there is
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s '	'

setup: $(STAMP)  ## make .venv and install vidpipe with everything that development needs

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	@echo "installing into $(VENV) (several GB the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[$(EXTRAS)]'
	@touch $@

check: $(STAMP)  ## formatting, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(STAMP)   ## fast tests (no GPU, no network)
	$(BIN)/python -m pytest -q -m "not slow and not gpu" $(PARALLEL)

test-slow: $(STAMP) ## kills, learning, whole recipes
	$(BIN)/python -m pytest -q -m "slow and not gpu" $(PARALLEL)

test-gpu: $(STAMP) ## needs a CUDA device; fails without one
	VIDPIPE_REQUIRE_GPU=1 $(BIN)/python -m pytest -q -m gpu

demo: $(STAMP)   ## motion videos -> shards -> a classifier trained on the CPU -> evaluation, prediction, figures
	@rm -rf demo/run
	@echo; echo "== generated videos of 8 kinds of motion, decoded once into shards"
	$(BIN)/vidpipe prep motion --source demo/videos --out demo/shards
	$(BIN)/vidpipe verify demo/shards
	$(BIN)/vidpipe inspect demo/shards --grid demo/contact-sheet.png
	@echo; echo "== a small ViViT, trained on the CPU"
	$(BIN)/vidpipe train vivit-tiny --shards demo/shards --out demo/run --device cpu
	@echo; echo "== evaluated on held-out videos (chance: 12.5 %); then with the frames of each clip out of order"
	$(BIN)/vidpipe eval demo/run --shards demo/shards --device cpu
	$(BIN)/vidpipe eval demo/run --shards demo/shards --device cpu --shuffle-frames 0
	@echo; echo "== a prediction for a held-out video file"
	$(BIN)/vidpipe predict demo/run demo/videos/val/clockwise/0000.mp4 --device cpu
	@echo; echo "== the loader against decoding on the fly"
	$(BIN)/vidpipe bench loader demo/shards --source demo/videos --quick --out demo/benchmark
	@echo; echo "pictures: demo/contact-sheet.png, demo/run/input.png, demo/run/curves.png, demo/benchmark/"

benchmark-loader: $(STAMP) ## the loader against its peers: on the demo's shards, or SHARDS="A B ..." SOURCE=... (and jpeg); SWEEP=batch-size,frames,workers
	$(BIN)/vidpipe bench loader $(SHARDS) $(if $(SOURCE),--source $(SOURCE) --codec jpeg) $(if $(SWEEP),--sweep $(SWEEP))

benchmark-prep: $(STAMP) ## preparation against bare decoding and re-encoding: of the demo's videos, or SOURCE=...
	$(BIN)/vidpipe bench prep --source $(or $(SOURCE),demo/videos)

benchmark-codecs: $(STAMP) ## bytes, fidelity and speed of all codecs: of the demo's videos, or SOURCE=...
	$(BIN)/vidpipe bench codecs --source $(or $(SOURCE),demo/videos)

benchmark-epoch: $(STAMP) ## share of an epoch that goes into data, on the fly and from shards: of the demo's videos, or SHARDS=... SOURCE=...
	$(BIN)/vidpipe bench epoch $(SHARDS) $(if $(SOURCE),--source $(SOURCE))

benchmark-gpu: $(STAMP) ## everything on a GPU, in under 8 minutes, from generated videos, or SHARDS=... SOURCE=...
	$(BIN)/vidpipe bench gpu $(SHARDS) $(if $(SOURCE),--source $(SOURCE))

experiments: $(STAMP) ## small experiments with training, three seeds each; about an hour
	$(BIN)/vidpipe bench experiments

clean:           ## remove what these targets made (not prepared data sets)
	rm -rf $(VENV) build dist demo benchmarks *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
