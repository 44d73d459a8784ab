# Two environments, then everything else. `make help` lists the targets.
PYTHON ?= python3.11
PYTHON_CURRENT ?= python3.12
WORKFLOW := .venv
TRAIN := .venv-train
GPU := .venv-gpu
CURRENT := .venv-current
VALIDATE := .venv-validate
UV ?= $(WORKFLOW)/bin/uv
CORES ?= 2
SNAKEMAKE := $(WORKFLOW)/bin/snakemake --cores $(CORES)
PIP_FLAGS := --quiet --disable-pip-version-check --no-input
PYTEST_FLAGS := -n $(CORES) --dist loadfile --max-worker-restart 0 # a module is one worker's: its fixtures are made once
CHECKED := workflow tests benchmarks envs gpu_kit

.PHONY: help env env-gpu env-current demo pocket docs sample test test-docs test-workflow test-train test-sglang test-current test-layouts test-faults test-controls test-toy test-slurm test-wheel test-gpu test-gpu-kit test-data test-page test-crate verify validate-crate lint format bench simulate simulate-mismatch gpu-lock hash-locks \
	check-gpu-lock gpu-kit
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(WORKFLOW)/.ready $(TRAIN)/.ready ## create or update both locked environments

$(WORKFLOW)/.ready: envs/workflow.lock pyproject.toml
	@echo "[env] $(WORKFLOW): snakemake, papermill, pandas, math-verify (about a minute)"
	@$(PYTHON) -m venv --clear $(WORKFLOW)
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/workflow.lock
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

$(TRAIN)/.ready: envs/train-cpu.lock pyproject.toml
	@echo "[env] $(TRAIN): torch, verl, sglang, ray (about two minutes, 2.7 GB)"
	@$(PYTHON) -m venv --clear $(TRAIN)
	@grep -v '^torch==' envs/train-cpu.lock | $(TRAIN)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r /dev/stdin
	@sed -E '/--hash/d; s/ *\\$$//' envs/train-cpu.lock | $(TRAIN)/bin/pip install $(PIP_FLAGS) --constraint /dev/stdin torch
	@$(TRAIN)/bin/pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

env-gpu: ## the locked CUDA environment in .venv-gpu, on a node with nvcc
	@$(PYTHON) -m venv --clear $(GPU)
	@$(GPU)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/train-gpu.lock
	@MAX_JOBS=8 $(GPU)/bin/pip install $(PIP_FLAGS) --no-deps --no-build-isolation flash-attn==2.7.4.post1
	@$(GPU)/bin/pip install $(PIP_FLAGS) --no-deps -e .

env-current: $(CURRENT)/.ready ## the same with a current torch and no compiled extras, in .venv-current (Python 3.12; 6 GB; GPU or not)

$(CURRENT)/.ready: envs/train-gpu-current.lock pyproject.toml
	@echo "[env] $(CURRENT): torch 2.11, verl, sglang, ray (about five minutes, 6 GB)"
	@$(PYTHON_CURRENT) -m venv --clear $(CURRENT)
	@$(CURRENT)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/train-gpu-current.lock
	@$(CURRENT)/bin/pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

demo: ## the toy study, from generated problems to its report (about 5 minutes after the environments)
	@$(MAKE) --no-print-directory -j2 env
	@$(SNAKEMAKE) --quiet host rules --rerun-incomplete --config tables=demo max_seeds=1
	@$(WORKFLOW)/bin/ngrpo table main

pocket: env ## a real language model that learns sums: the study at scale pocket, to its report (hours on 2 cores; goes on where it stopped)
	@$(WORKFLOW)/bin/ngrpo plan all --scale pocket
	@$(SNAKEMAKE) --quiet host rules --rerun-incomplete --config scale=pocket
	@$(WORKFLOW)/bin/ngrpo table first-study --scale pocket

test: ## all tests that need neither root, a GPU nor other people's data (about 50 minutes)
	@$(MAKE) --no-print-directory -j2 env
	@$(MAKE) --no-print-directory test-workflow test-docs test-train test-sglang test-toy test-crate

test-workflow: $(WORKFLOW)/.ready ## tests of study, grading, analysis and report
	$(WORKFLOW)/bin/pytest $(PYTEST_FLAGS) -m "not toy and not controls and not slurm"

test-docs: env ## docs and README: names, links, commands, quoted outputs; the worked examples, followed
	$(WORKFLOW)/bin/pytest tests/docs

test-train: $(TRAIN)/.ready ## tests of the method and of training through verl
	$(TRAIN)/bin/pytest $(PYTEST_FLAGS) tests/workflow/test_training.py tests/workflow/test_own_run.py tests/unit

test-sglang: $(TRAIN)/.ready ## what every engine promises, on the real sglang engine on CPU; training on two ranks and with TP 2
	$(TRAIN)/bin/pytest $(PYTEST_FLAGS) -m "not layouts" tests/contract tests/workflow/test_layouts.py

test-current: $(CURRENT)/.ready ## what every engine promises, in the environment with a current torch (about 15 minutes)
	$(CURRENT)/bin/pytest $(PYTEST_FLAGS) tests/contract

test-layouts: $(TRAIN)/.ready ## every mixer through verl on one rank, two ranks and TP 2, with a resume (about 20 minutes)
	$(TRAIN)/bin/pytest tests/workflow/test_layouts.py

test-faults: $(TRAIN)/.ready ## a healthy training in bfloat16, and one stopped by each of seven faults (about 10 minutes)
	$(TRAIN)/bin/pytest tests/workflow/test_guards.py

test-toy: env ## the toy DAG through Snakemake: every stage, reruns, errors
	$(WORKFLOW)/bin/pytest -m toy

test-controls: env ## every control, trained at toy scale: blind rewards teach nothing, the others do (about 15 minutes)
	$(WORKFLOW)/bin/pytest -m controls tests/workflow/test_control_runs.py

test-wheel: $(TRAIN)/.ready ## the package's extras from a built wheel, each in a fresh environment (about 10 minutes, 3 GB)
	$(TRAIN)/bin/pytest tests/wheel

test-data: env ## real problems load, filter, render and grade (DATA=a folder of them; see tests/data)
	NGRPO_REAL_DATA="$(DATA)" $(WORKFLOW)/bin/pytest tests/data
	NGRPO_REAL_DATA="$(DATA)" $(TRAIN)/bin/pytest tests/data

test-page: $(WORKFLOW)/.ready ## the report page in headless Chromium (which the system must have)
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/page.lock
	$(WORKFLOW)/bin/pytest tests/page

test-gpu: ## checks for a machine with a GPU (ENV=.venv-gpu); without one, the half that runs on CPU
	$(or $(ENV),$(TRAIN))/bin/pytest -m gpu tests/gpu

gpu-kit: $(TRAIN)/.ready ## a kit for GPU nodes without internet, in build/gpu-kit (4 parts, a quarter of an hour; TORCH=version, LOCK=file, PY=version)
	@$(TRAIN)/bin/python -m gpu_kit.pack $(addprefix --torch ,$(TORCH)) $(addprefix --lock ,$(LOCK)) $(addprefix --python ,$(PY))

test-gpu-kit: $(CURRENT)/.ready gpu-kit ## unpack that kit over a torch without a card and run its CPU half (about half an hour)
	$(CURRENT)/bin/pytest tests/gpu_kit

check-gpu-lock: $(UV) ## both locks for GPUs are what their .in files resolve to (seconds; downloads metadata only)
	@UV="$(abspath $(UV))" envs/resolve-gpu.sh check

gpu-lock: $(UV) ## resolve envs/train-gpu.in and envs/train-gpu-current.in into their locks again
	@UV="$(abspath $(UV))" envs/resolve-gpu.sh write

hash-locks: $(UV) ## write the locks with the sha256 of every file of the pinned versions
	@UV="$(abspath $(UV))" envs/hash-locks.sh

$(WORKFLOW)/bin/uv: envs/check.lock $(WORKFLOW)/.ready
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/check.lock
	@touch $@

test-slurm: env ## the toy study and its faults on a SLURM started here (Debian, root; FAULTS="scancel sigterm" runs some)
	FAULTS="$(FAULTS)" TIMES="$(or $(TIMES),1)" $(WORKFLOW)/bin/pytest tests/slurm

verify: $(WORKFLOW)/.ready ## recompute an unpacked crate's tables from its grades (CRATE=folder)
	@$(WORKFLOW)/bin/ngrpo verify $(or $(CRATE),$(error name the unpacked crate: make verify CRATE=folder))

validate-crate: $(VALIDATE)/.ready ## let a validator judge a crate (CRATE=folder or .zip)
	@$(VALIDATE)/bin/python envs/validate_crate.py $(or $(CRATE),$(error name the crate: make validate-crate CRATE=folder))

test-crate: $(WORKFLOW)/.ready $(VALIDATE)/.ready ## a crate of ours passes that validator's required checks, spoiled ones do not
	$(WORKFLOW)/bin/pytest tests/crate

$(VALIDATE)/.ready: envs/validate.lock
	@echo "[env] $(VALIDATE): roc-validator (half a minute)"
	@$(PYTHON) -m venv --clear $(VALIDATE)
	@$(VALIDATE)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/validate.lock
	@touch $@

docs: $(WORKFLOW)/.ready ## write the parts of docs/ that are made: quoted outputs, the configuration reference, schemas
	$(WORKFLOW)/bin/python tests/docs/outputs.py

sample: env ## the toy study with three training seeds and the methods of the field, its report into docs/sample, README's picture of it (needs Chromium)
	@$(WORKFLOW)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/page.lock
	@$(SNAKEMAKE) --quiet host rules --rerun-incomplete --config scale=toy tables='[all,field]'
	@$(WORKFLOW)/bin/python tests/docs/sample.py

lint: $(WORKFLOW)/.ready $(TRAIN)/.ready ## ruff, snakefmt, snakemake --lint, mypy
	$(WORKFLOW)/bin/ruff check $(CHECKED)
	$(WORKFLOW)/bin/ruff format --check $(CHECKED)
	$(WORKFLOW)/bin/snakefmt --check Snakefile rules
	$(WORKFLOW)/bin/snakemake --lint
	$(WORKFLOW)/bin/mypy
	$(WORKFLOW)/bin/mypy --python-executable $(TRAIN)/bin/python --cache-dir .mypy_cache/train -p ngrpo.method

simulate: $(WORKFLOW)/.ready ## studies with a known truth: coverage, errors and power, into docs/statistics.md (about 20 minutes)
	$(WORKFLOW)/bin/python -m benchmarks.simulate

simulate-mismatch: env ## the three guards: each fault, and 1,000 runs of bfloat16 noise (about 10 minutes)
	$(TRAIN)/bin/python -W ignore -m benchmarks.record_faults
	$(TRAIN)/bin/python -W ignore -m benchmarks.sketches
	$(WORKFLOW)/bin/python -m benchmarks.mismatch

bench: env ## figures against peers, printed and kept in results/bench.json (ONLY=name runs one)
	@$(TRAIN)/bin/pip install $(PIP_FLAGS) --no-deps --require-hashes -r envs/bench.lock
	@$(TRAIN)/bin/python -W ignore -m benchmarks.run $(ONLY)

format: $(WORKFLOW)/.ready ## let ruff and snakefmt format
	$(WORKFLOW)/bin/ruff check --fix $(CHECKED)
	$(WORKFLOW)/bin/ruff format $(CHECKED)
	$(WORKFLOW)/bin/snakefmt Snakefile rules
