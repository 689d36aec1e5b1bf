#!/usr/bin/env bash
# What a delivered voice packet costs the server, beside what it costs the kernel alone. As root, on a quiet machine with
# two CPUs: everything takes hours; --list names the tables, --only picks some. Writes target/bench/bench.md
# and bench.html. Arguments go to sfu-bench: bash tools/bench.sh --only tick --runs 3
#
# Meanwhile every task that may run on all CPUs, the kernel's own included, keeps off the first one, which is the
# server's, as far as the kernel lets it be moved; and net.core.netdev_max_backlog is raised, as the load's CPU stands for
# those of thousands of callers. In the end all of it is as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

allowed() { "$@" awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status; }

tasks_on() { # Just these CPUs, by their list.
    { grep -sH '^Cpus_allowed_list:' /proc/[0-9]*/task/[0-9]*/status || true; } |
        awk -F '[/:\t]' -v cpus="$1" '$NF == cpus { print $5 }'
}

without() { grep -vxF "$1" || true; }

move() { # Standard input's tasks to these CPUs. Some are gone, some are bound to theirs.
    while read -r task; do
        taskset -cp "$1" "$task" >/dev/null 2>&1 || true
    done
}

clear_first_cpu() {
    all=$(allowed)
    [[ $all == *[-,]* ]] || return 0
    first=${all%%[-,]*}
    others=$(allowed taskset -c "$(seq -s , $((first + 1)) "$(($(getconf _NPROCESSORS_CONF) - 1))")")
    were_there=$(tasks_on "$others")
    # Reads until this script has ended, however that did.
    local functions
    functions=$(declare -f tasks_on without move let_back put)
    kworkers=$(cat "$kworkers_file" 2>/dev/null || true)
    backlog=$(cat "$backlog_file" 2>/dev/null || true) # Is the first network namespace's alone.
    exec 3> >(all=$all others=$others were_there=$were_there kworkers=$kworkers kworkers_file=$kworkers_file \
        backlog=$backlog backlog_file=$backlog_file \
        exec setsid bash -c "$functions; read -r; let_back" >/dev/null 2>&1)
    guard=$!
    [[ ! $backlog || $backlog -ge $backlog_min ]] || put "$backlog_min" "$backlog_file"
    tasks_on "$all" | without $$ | move "$others"
    put "$(taskset -c "$others" sh -c 'taskset -p $$' | awk '{ print $NF }')" "$kworkers_file"
}

# Kernel threads that are bound to no CPU; taskset may not move them.
kworkers_file=/sys/devices/virtual/workqueue/cpumask
# Packets that a CPU takes in later: the load's, while it is busy with those before.
backlog_file=/proc/sys/net/core/netdev_max_backlog
backlog_min=20000
put() {
    { echo "$1" >"$2"; } 2>/dev/null || true
}

let_back() { # What was started meanwhile as well; one that forks just then has a child that is found the next time.
    for _ in 1 2 3; do
        tasks_on "$others" | without "${were_there:-none}" | move "$all"
    done
    put "$kworkers" "$kworkers_file"
    [[ ! $backlog ]] || put "$backlog" "$backlog_file"
}

clean() { # Of a run that was ended in its middle, however.
    kill "$bench" 2>/dev/null || true
    wait "$bench" || true
    for namespace in $(ip netns list | sed -n "s/^\(sfu-bench-$bench-[a-z]*\).*/\1/p"); do
        ip netns pids "$namespace" | xargs -r kill -KILL || true
        ip netns del "$namespace" || true
    done
    exec 3>&-
    wait ${guard:+"$guard"} || true
}

cargo build --release --features tools --bin sfu --bin sfu-load --bin sfu-bench
case " $* " in
*" --list "* | *" --help "* | *" -h "* | *" --version "* | *" -V "*) ;;
*)
    trap 'exec 3>&-; wait ${guard:+"$guard"} || true' EXIT
    clear_first_cpu
    ;;
esac
"${CARGO_TARGET_DIR:-target}/release/sfu-bench" "$@" 3>&- &
bench=$!
trap clean EXIT
trap 'exit 130' INT TERM HUP
wait $bench
