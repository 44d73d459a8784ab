#!/usr/bin/env bash
# Run by Snakemake in the new conda environment, from the workflow's folder. For GPUs point at an environment of your
# own instead (docs/environments.md).
set -euo pipefail
grep -v '^torch==' envs/train-cpu.lock | pip install --quiet --no-deps --require-hashes -r /dev/stdin
sed -E '/--hash/d; s/ *\\$//' envs/train-cpu.lock | pip install --quiet --constraint /dev/stdin torch
pip install --quiet --no-deps -e .
