#!/usr/bin/env bash
# What a delivered voice packet costs the server, beside what it costs the kernel alone. As root, on a quiet machine with
# two CPUs: everything takes hours; --list names the tables, --only picks some. Writes target/bench/bench.md
# and bench.html. Arguments go to sfu-bench: bash tools/bench.sh --only tick --runs 3
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

clean() { # Of a run that was ended in its middle.
    for namespace in $(ip netns list | sed -n "s/^\(sfu-bench-$bench-[a-z]*\).*/\1/p"); do
        ip netns pids "$namespace" | xargs -r kill
        ip netns del "$namespace"
    done
}

cargo build --release --features tools --bin sfu --bin sfu-load --bin sfu-bench
"${CARGO_TARGET_DIR:-target}/release/sfu-bench" "$@" &
bench=$!
trap 'kill $bench 2>/dev/null || true; wait $bench || true; clean; exit 130' INT TERM
wait $bench
