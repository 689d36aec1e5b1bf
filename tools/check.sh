#!/usr/bin/env bash
# The one check, here and in CI: `bash tools/check.sh`. Installs what is missing where it can (Debian, as root),
# else says what to install. Prints as it goes, goes on after a failed step, ends with a summary.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
exec </dev/null

export CARGO_TERM_COLOR=never
rust_min=1.95
summary=()
failed=0

say() { printf '\n==> %s\n' "$*"; }

record() { # result, name, what else
    summary+=("$(printf '%-5s %-46s %s' "$1" "$2" "${3-}")")
    [ "$1" != FAIL ] || failed=1
}

step() { # name, command…
    local name=$1 start=$SECONDS
    shift
    say "$name"
    if "$@"; then record ok "$name" "$((SECONDS - start)) s"; else record FAIL "$name" "$((SECONDS - start)) s"; fi
}

# What the check cannot do without, each with its Debian package: commands (the browser's where the tests look), and
# modules of Python, as Debian's python3 has no `venv` that works.
needed='cc build-essential
openssl openssl
ip iproute2
curl curl
python3 python3
python3:ensurepip python3-venv
systemd-analyze systemd
/usr/bin/chromium chromium
/usr/bin/chromedriver chromium-driver
/usr/bin/turnserver coturn
janus janus
unshare util-linux
tshark tshark
promtool prometheus
npm npm'

is_there() { # command or python3:module
    case $1 in
        python3:*) python3 -c "import ${1#python3:}" ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

missing() {
    while read -r what package; do
        is_there "$what" || printf '%s ' "$package"
    done <<<"$needed"
}

# Debian starts what it installs, and does so at each boot: coturn would take the SFU's port. The tests start their own.
install() ( # packages… In a shell of its own, for the trap.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit
    fi
    apt-get update -q && apt-get install -q -y --no-install-recommends "$@" || exit
    for package; do
        case $package in coturn | janus | prometheus) systemctl disable --quiet "$package" || true ;; esac
    done
)

if [ -n "$(missing)" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing $(missing)"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2046
    install $(missing)
fi
if [ -n "$(missing)" ]; then
    echo "This machine lacks: $(missing)"
    echo "Install them (Debian: apt-get install $(missing)), then run this again."
    echo "Chromium is there because the tests hold a call with a real browser; no display is needed."
    exit 2
fi

[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
if ! command -v cargo >/dev/null 2>&1 && command -v rustup >/dev/null 2>&1; then
    rustup default stable
fi
if ! command -v cargo >/dev/null 2>&1; then
    echo "This machine lacks Rust $rust_min or later. Install it as https://rustup.rs says, with rustfmt and clippy."
    exit 2
fi
rust=$(rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$rust_min" "$rust" | sort -V | head -n 1)" != "$rust_min" ]; then
    echo "Rust $rust_min or later is needed, this is $rust: rustup update stable"
    exit 2
fi
for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 ||
        rustup component add "${component/fmt/rustfmt}" || { echo "cargo $component is missing"; exit 2; }
done

top_level() { # What lies there by accident gets into a commit by accident.
    git rev-parse --is-inside-work-tree >/dev/null 2>&1 || return 0
    local strangers
    strangers=$(git ls-files | cut -d/ -f1 | sort -u | grep -vxE \
        '\.(ci|clippy\.toml|dockerignore|gitignore|rustfmt\.toml)|Cargo\.(lock|toml)|Dockerfile|LICENSE|README\.md|benches|deny\.toml|env\.example|src|tests|tools')
    [ -z "$strangers" ] || { echo "tracked, and not what the top level is for: $strangers"; return 1; }
}

deny() {
    # Unoptimised: builds in a third of the time, and checks this tree in a second all the same.
    if ! cargo deny --version >/dev/null 2>&1; then
        echo "installing cargo-deny (once)"
        cargo install --quiet --locked --debug cargo-deny || return 1
    fi
    cargo deny --log-level warn check bans licenses sources
}

linters() { # Of what is shipped (tests/deploy); kept below target/, made anew when their versions change.
    cmp -s tests/deploy/requirements.txt target/tools/requirements.txt && return
    python3 -m venv --clear target/tools && target/tools/bin/pip install -q --disable-pip-version-check \
        -r tests/deploy/requirements.txt && cp tests/deploy/requirements.txt target/tools/
}

wscat() { # For README's own lines (tests/integration.rs); anew when its version changes.
    local version=6.1.0
    grep -qs "\"version\": \"$version\"" target/tools/node/node_modules/wscat/package.json && return
    npm install --silent --no-audit --no-fund --no-package-lock --prefix target/tools/node "wscat@$version"
}

say "$(uname -sr), $(nproc) CPUs, $(rustc --version)"
step "top level" top_level
step "fmt" cargo fmt --check
step "clippy" cargo clippy --locked --all-targets --all-features -- -D warnings
step "other processors" cargo rustc --locked --lib --profile check -- --cfg vector_absent -D warnings
step "linters" linters
step "wscat" wscat
step "test" cargo test --locked --no-fail-fast
if IO_BACKEND=auto "${CARGO_TARGET_DIR:-target}/debug/sfu" --check | tail -n 1 | grep -q recvmmsg; then
    record skip "tests of the ring" "this kernel grants none"
fi
# The same calls on the other backend; the servers that the tests start inherit the variable.
step "test without io_uring" env IO_BACKEND=mmsg cargo test --locked --no-fail-fast --test loopback --test rooms \
    --test promptness --test hostile --test capture --test staying_up --test turn \
    --test spanning --test overload --test recovery --test states --test refused_sends
step "browsers without io_uring" env IO_BACKEND=mmsg cargo test --locked --test browser -- \
    three_browsers padded_voices
step "test --benches" cargo test --locked --benches
# Together: each set of features is a build of its own.
step "test tools" cargo test --locked --no-fail-fast --features load,integration --bin sfu-load --bin sfu-bench \
    --bin sfu-replay --test replay --test explain --test integration --test load
RUSTDOCFLAGS="-D warnings" step "doc" cargo doc --locked --no-deps --document-private-items
step "deny" deny

say "summary, $((SECONDS / 60)) min $((SECONDS % 60)) s"
printf '%s\n' "${summary[@]}"
if [ "$failed" = 0 ]; then echo "all is well"; else echo "not all is well: see above"; fi
exit "$failed"
