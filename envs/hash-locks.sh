#!/usr/bin/env bash
# Write locks (default: all) with the sha256 of every file that the package index has of each pinned version. Heads and
# versions stay. UV names the uv program. torch in train-cpu.lock gets none: any build of that version may be taken.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

pins() { # a lock's lines without comments and hashes
    sed -E '/^ *(#|--hash)/d; s/ *\\$//' "$1"
}

for lock in "${@:-*.lock}"; do
    for lock in $lock; do
        python=$([ "$lock" = train-gpu-current.lock ] && echo 3.12 || echo 3.11)
        any=$([ "$lock" = train-cpu.lock ] && echo '^torch==' || echo '^$')
        pins "$lock" | grep -vE "$any" >"$work/pins.in"
        {
            sed '/^[^#]/,$d' "$lock"
            pins "$lock" | grep -E "$any" || true
            "${UV:-uv}" pip compile "$work/pins.in" --quiet --no-config --no-deps --generate-hashes --no-header \
                --no-annotate --no-emit-index-url --python-version "$python"
        } >"$work/whole"
        cp "$work/whole" "$lock"
    done
done
