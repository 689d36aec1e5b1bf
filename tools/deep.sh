#!/usr/bin/env bash
# What is too slow or needs too much for the everyday check: Miri, AddressSanitizer, longer fuzzing. What is
# not installed is skipped with a line that says so.
#
#   FUZZ_SECONDS=60    time for each parser
set -uo pipefail
cd "$(dirname "$0")/.." || exit
exec </dev/null

failed=0
say() { printf '\n==> %s\n' "$*"; }
skip() { printf 'skipped: %s\n' "$*"; }
run() { "$@" || { echo "FAILED: $*"; failed=1; }; }
host=$(rustc -vV | sed -n 's/^host: //p')

say "Miri: the pure rooms"
if cargo +nightly miri --version >/dev/null 2>&1; then
    run cargo +nightly miri test --lib -- ids:: time:: packet:: demux:: rtp:: srtp::index::
else
    skip "no Miri (rustup toolchain install nightly; rustup +nightly component add miri)"
fi

say "AddressSanitizer: unit tests, SRTP on wide registers, and a call"
# The sanitizer's runtime comes with the stable toolchain, too, which only has to be told that we mean it.
# Instrumented objects stay out of the everyday target directory. LeakSanitizer needs ptrace, which containers
# rarely grant, and leaks are not what we look for.
ASAN_OPTIONS=detect_leaks=0 RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=target/asan \
    run cargo test --locked --target "$host" --lib --test vector --test srtp_oracle --test loopback

say "Fuzzing: the corpus of each parser, mutated"
run env FUZZ_SECONDS="${FUZZ_SECONDS:-60}" FUZZ_SEED="$RANDOM" cargo test --locked --test fuzz

exit "$failed"
