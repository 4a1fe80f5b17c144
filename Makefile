# Everything lives in .venv: `make clean` removes it. PYTHON chooses the interpreter, for example `make tutorial PYTHON=python3.12`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help tutorial test exercises slides faults gpu lab clean

help:
	@echo "make tutorial   install, render the toy birds, run the chapters, build a report"
	@echo "make test       install and run all tests, the chapters on a small profile included"
	@echo "make exercises  exercises without solutions, and the small runs they stand on; qpm grade FILE grades them"
	@echo "make slides     slides of the chapters of the tutorial, one page each"
	@echo "make faults     kill the chapters at random moments, 50 times, and compare with an undisturbed run"
	@echo "make gpu        tests and benchmarks of a GPU, results as one file and one table in gpu-results"
	@echo "make lab        install and open the notebooks in JupyterLab"
	@echo "make clean      remove the environment (runs/ and the cache stay)"

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 to 3.13 was not found: install one, or name it with make PYTHON=<path>"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "venv is missing: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $(READY)

tutorial: $(READY)
	$(BIN)/qpm run --profile toy --out runs/toy

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

exercises: $(READY)
	test -d exercises || $(BIN)/qpm exercises --out exercises
	$(BIN)/qpm run --profile smoke --out runs/exercises
	$(BIN)/qpm run --profile smoke --set selection.method=sldd --out runs/exercises-sldd --to 04

slides: $(READY)
	$(BIN)/python data_scripts/make_slides.py runs/toy

faults: $(READY)
	$(BIN)/python tests/faults/harness.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

lab: $(READY)
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf $(VENV)
