# Every target makes the virtual environment and installs what it needs when that is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed

.PHONY: demo test lint bench docs servers slurm clean

demo: $(READY)
	$(BIN)/coffea-ad demo -o build/demo

test lint bench docs servers slurm: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nox --no-venv --session $@

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]' --group dev --group docs
	touch $@

clean:
	rm -rf .venv .nox build dist
