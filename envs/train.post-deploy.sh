#!/usr/bin/env bash
# Run by Snakemake in the new conda environment, from the workflow's folder. For GPUs point at an environment of your
# own instead (docs/environments.md).
set -euo pipefail
pip install --quiet --constraint envs/train-cpu.lock torch
grep -v '^torch==' envs/train-cpu.lock | pip install --quiet --no-deps --require-hashes -r /dev/stdin
pip install --quiet --no-deps -e .
