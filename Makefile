# make demo: set up and run the main job. make test: set up and pass the tests. A second run reuses .venv.

PYTHON ?= python3
export PYTHON
export PYTHONDONTWRITEBYTECODE :=  # without a cache every process would compile all that it imports again
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check docs lock clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

demo: $(READY)  ## the main job in both domains: make studies, train, evaluate, report, into demo/
	.venv/bin/fovea demo

test: $(READY)  ## linters, types, layers, then all tests
	scripts/check
	scripts/test

check: $(READY)  ## linters, types and layers only
	scripts/check

docs: $(READY)  ## write the reference, run every block of README and docs
	scripts/docs

lock: $(READY)  ## resolve constraints.txt anew
	.venv/bin/uv pip compile pyproject.toml --all-extras --upgrade --quiet --no-header --no-annotate \
		--python .venv/bin/python --output-file constraints.txt

clean:  ## remove the environment and the tools' caches; demo/ and runs/ stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(READY): pyproject.toml constraints.txt scripts/install
	scripts/install
	@touch $@
