#!/usr/bin/env bash
# Resolve envs/train-gpu.in for CUDA machines (Linux x86-64, glibc >= 2.28, Python 3.11) from package metadata alone:
# nothing is downloaded, no GPU is needed. UV names the uv program.
#   resolve-gpu.sh write   renew envs/train-gpu.lock; what the lock or train-cpu.lock pins is kept where it can be
#   resolve-gpu.sh check   fail unless the lock is exactly what train-gpu.in resolves to with the lock's versions;
#                          then the check checks itself: a changed pin, a lost one and one too many must fail
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

resolve() { # further options of uv
    "${UV:-uv}" pip compile train-gpu.in --quiet --no-config --python-version 3.11 \
        --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --no-emit-index-url "$@"
}

pins() { # a lock's lines without comments and hashes
    sed -E '/^ *(#|--hash)/d; s/ *\\$//' "$1"
}

agrees() { # a lock
    pins "$1" >"$work/pins"
    resolve --constraint "$work/pins" >"$work/resolved" && diff "$work/pins" "$work/resolved"
}

refused() { # what, a lock
    if agrees "$2" >"$work/said" 2>&1; then
        echo "the check is broken: it lets $1 pass" >&2
        exit 1
    fi
}

case "${1:-}" in
write)
    { pins train-gpu.lock | grep . || pins train-cpu.lock | grep -vE '^(torch|triton|sympy)=='; } >"$work/lock"
    resolve --output-file "$work/lock" >/dev/null
    { sed '/^[^#]/,$d' train-gpu.lock; grep -v '^#' "$work/lock"; } >"$work/whole"
    cp "$work/whole" train-gpu.lock
    ./hash-locks.sh train-gpu.lock
    ;;
check)
    if ! agrees train-gpu.lock; then
        echo "envs/train-gpu.lock isn't what envs/train-gpu.in resolves to (<: lock, >: resolved): make gpu-lock" >&2
        exit 1
    fi
    sed 's/^tokenizers==.*/tokenizers==0.20.0/' train-gpu.lock >"$work/changed"
    sed '/^tokenizers==/d' train-gpu.lock >"$work/lost"
    { cat train-gpu.lock; echo "zzz==1.0"; } >"$work/more"
    refused "a changed pin" "$work/changed"
    refused "a lost pin" "$work/lost"
    refused "a pin too many" "$work/more"
    echo "envs/train-gpu.lock: $(grep -c == train-gpu.lock) packages, as resolved; a changed, a lost and an added pin are refused"
    ;;
*)
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac
