#!/usr/bin/env bash
# What a delivered voice packet costs the server, beside what it costs the kernel alone. As root, on a quiet machine with
# two CPUs: everything takes about an hour; --list names the tables, --only picks some. Writes target/bench/bench.md
# and bench.html. Arguments go to sfu-bench: bash tools/bench.sh --only tick --runs 3
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

cargo build --release --features tools --bin sfu --bin sfu-load --bin sfu-bench
exec "${CARGO_TARGET_DIR:-target}/release/sfu-bench" "$@"
