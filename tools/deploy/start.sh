#!/usr/bin/env bash
# Starts the server on this machine, in the foreground, where neither systemd nor a container engine does:
#
#   tools/deploy/start.sh [PATH-OF-SFU]
#
# Without a path: `sfu` of the search path, or else a release build of this checkout. Settings come from the
# environment and from .env in the folder where it is called. Ends at once with status 2 if one is wrong.
set -euo pipefail
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

if [ "$#" -gt 0 ]; then
    sfu=$1
elif ! sfu=$(command -v sfu); then
    cargo build --locked --release --bin sfu --manifest-path "$checkout/Cargo.toml"
    sfu=${CARGO_TARGET_DIR:-$checkout/target}/release/sfu
fi

# Names the wrong setting, if there is one.
"$sfu" --check >/dev/null

# Each client takes a descriptor, and the usual soft limit is 1024. What the hard limit allows needs no rights.
ulimit -S -n "$(ulimit -H -n)" || echo "start.sh: at most $(ulimit -n) descriptors" >&2
ulimit -S -l "$(ulimit -H -l)" || echo "start.sh: at most $(ulimit -l) KiB of locked memory" >&2

# In its place, so that signals and the exit status are the server's own.
exec "$sfu"
