#!/usr/bin/env bash
# Run by Snakemake in the new conda environment, from the workflow's folder.
set -euo pipefail
pip install --quiet --no-deps --require-hashes -r envs/workflow.lock
pip install --quiet --no-deps -e .
