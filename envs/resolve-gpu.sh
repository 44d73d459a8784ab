#!/usr/bin/env bash
# Resolve the locks for CUDA machines (Linux x86-64, glibc >= 2.28) from package metadata alone: nothing is downloaded, no
# GPU is needed. UV names the uv program.
#   resolve-gpu.sh write   renew the locks; what a lock or train-cpu.lock pins is kept where it can be
#   resolve-gpu.sh check   fail unless each lock is exactly what its .in resolves to with the lock's versions; then the
#                          check checks itself: a changed pin, a lost one and one too many must fail
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
declare -A PYTHON=([train-gpu]=3.11 [train-gpu-current]=3.12)

resolve() { # a lock's name, further options of uv
    "${UV:-uv}" pip compile "$1.in" --quiet --no-config --python-version "${PYTHON[$1]}" \
        --python-platform x86_64-manylinux_2_28 --no-header --no-annotate --no-emit-index-url "${@:2}"
}

pins() { # a lock's lines without comments and hashes
    sed -E '/^ *(#|--hash)/d; s/ *\\$//' "$1"
}

agrees() { # a lock's name, a file in its place
    pins "$2" >"$work/pins"
    resolve "$1" --constraint "$work/pins" >"$work/resolved" && diff "$work/pins" "$work/resolved"
}

refused() { # what, a lock's name, a file in its place
    if agrees "$2" "$3" >"$work/said" 2>&1; then
        echo "the check is broken: it lets $1 pass" >&2
        exit 1
    fi
}

write() { # a lock's name
    { pins "$1.lock" | grep . || pins train-cpu.lock | grep -vE '^(torch|triton|sympy)=='; } >"$work/lock"
    resolve "$1" --output-file "$work/lock" >/dev/null
    { sed '/^[^#]/,$d' "$1.lock"; grep -v '^#' "$work/lock"; } >"$work/whole"
    cp "$work/whole" "$1.lock"
    ./hash-locks.sh "$1.lock"
}

check() { # a lock's name
    if ! agrees "$1" "$1.lock"; then
        echo "envs/$1.lock isn't what envs/$1.in resolves to (<: lock, >: resolved): make gpu-lock" >&2
        exit 1
    fi
    echo "envs/$1.lock: $(grep -c == "$1.lock") packages, as resolved for Python ${PYTHON[$1]}"
}

case "${1:-}" in
write)
    write train-gpu
    write train-gpu-current
    ;;
check)
    check train-gpu
    check train-gpu-current
    lock=train-gpu.lock
    sed 's/^tokenizers==.*/tokenizers==0.20.0/' $lock >"$work/changed"
    sed '/^tokenizers==/d' $lock >"$work/lost"
    { cat $lock; echo "zzz==1.0"; } >"$work/more"
    refused "a changed pin" train-gpu "$work/changed"
    refused "a lost pin" train-gpu "$work/lost"
    refused "a pin too many" train-gpu "$work/more"
    echo "a changed, a lost and an added pin are refused"
    ;;
*)
    sed -n '2,7s/^# //p' "$0" >&2
    exit 2
    ;;
esac
