# Everything runs in a virtual environment of its own: no target needs anything but Python ≥ 3.11, pip and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= out/demo
JOBS ?= 2
# Tests and jobs start many processes: each would compile every module again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo serve test check format bench train-mini clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## make the virtual environment

# constraints.txt names the versions that were tested together, and the CPU build of torch.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: install  ## score the packaged sample dataset with the packaged model, write out/demo/report.html
	rm -rf $(OUT)
	$(BIN)/tokensight score --input scorer/mini/sample --output $(OUT) \
		--max-failed-rows 2%  # four rows of the sample are planted to fail

serve: install  ## score over HTTP at http://127.0.0.1:8000 with the packaged model
	$(BIN)/tokensight serve

test: install  ## the whole test suite, in JOBS processes
	$(BIN)/python -m pytest -n $(JOBS)

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## mend lint and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## the figures in the README
	$(BIN)/python benchmarks/grounding.py --captions 300
	$(BIN)/python -m benchmarks.engine
	$(BIN)/python -m benchmarks.pipeline_scale

train-mini: install  ## make the packaged reference model again, from nothing
	$(BIN)/python -m scorer.mini.train

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
