#!/usr/bin/env bash
# What a delivered voice packet costs the server, beside what it costs the kernel alone: five runs of each by turns,
# medians at the end. Arguments go to every run: bash tools/bench.sh --listeners 50 --seconds 20
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

cargo build --release --features tools --bin sfu --bin sfu-load
load=${CARGO_TARGET_DIR:-target}/release/sfu-load
results=$(mktemp)
trap 'rm -f "$results"' EXIT

echo "$(uname -sr), $(nproc) CPUs, $(git describe --always --dirty 2>/dev/null || true)"
for _ in 1 2 3 4 5; do
    for kind in floor sfu; do
        "$load" "$kind" "$@" | tee -a "$results"
    done
done

median() { # kind, key
    sed -n "s/^kind=$1 .*[ ]$2=\([0-9.]*\).*/\1/p" "$results" | sort -g | sed -n 3p
}
echo
for key in cpu_us_per_packet cpu_percent lost_percent latency_us_p50 latency_us_p99; do
    printf 'median %-18s  sfu %10s   floor %10s\n' "$key" "$(median sfu "$key")" "$(median floor "$key")"
done
