# Two environments, then everything else. `make help` lists the targets.
PYTHON ?= python3.11
WORKFLOW := .venv
TRAIN := .venv-train
CORES ?= 2
SNAKEMAKE := $(WORKFLOW)/bin/snakemake --cores $(CORES)
PIP_FLAGS := --quiet --disable-pip-version-check --no-input

.PHONY: help env demo test test-workflow test-train lint clean-env
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(WORKFLOW)/.ready $(TRAIN)/.ready ## create or update both locked environments

$(WORKFLOW)/.ready: envs/workflow.lock pyproject.toml
	@echo "[env] $(WORKFLOW): snakemake, papermill, pandas, math-verify (about a minute)"
	@$(PYTHON) -m venv --clear $(WORKFLOW)
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps -r envs/workflow.lock
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

$(TRAIN)/.ready: envs/train-cpu.lock pyproject.toml
	@echo "[env] $(TRAIN): torch, verl, sglang, ray (about two minutes, 2.7 GB)"
	@$(PYTHON) -m venv --clear $(TRAIN)
	@$(TRAIN)/bin/pip install $(PIP_FLAGS) --constraint envs/train-cpu.lock torch
	@$(TRAIN)/bin/pip install $(PIP_FLAGS) --no-deps -r envs/train-cpu.lock
	@$(TRAIN)/bin/pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@
