#!/usr/bin/env bash
# A cluster of three nodes on this machine, in one command. It installs what it needs (Debian
# 12, as root), builds, and then prints each command that it runs, so that you can repeat it.
#
#   examples/quickstart.sh          shows everything, checks it, and cleans up
#   examples/quickstart.sh --keep   leaves the cluster running, and says how to use and stop it
set -euo pipefail

keep=no
case "${1-}" in
'') ;;
--keep) keep=yes ;;
*)
    echo "usage: examples/quickstart.sh [--keep]" >&2
    exit 2
    ;;
esac
[ $# -le 1 ] || { echo "usage: examples/quickstart.sh [--keep]" >&2; exit 2; }

root=$(cd "$(dirname "$0")/.." && pwd)
if [ "$(id -u)" -ne 0 ]; then
    echo "quickstart: run this as root: it installs packages and mounts" >&2
    exit 1
fi

work=
writer=
nodes=(a b c)
declare -A pids=()

# ---- Telling, running, waiting -------------------------------------------------------

# A paragraph, filled again: names in it have any length.
say() {
    printf '\n'
    printf '%s\n' "$*" | fold -s -w 88 | sed 's/^/# /; s/ *$//'
}

# Prints a command as one would type it, and runs it.
run() {
    printf '$ %s\n' "$*"
    "$@"
}

# The same for a line with redirections in it.
run_line() {
    printf '$ %s\n' "$1"
    bash -c "$1"
}

fail() {
    printf '\nquickstart: FAILED: %s\n' "$*" >&2
    exit 1
}

expect() { # WHAT ACTUAL EXPECTED
    [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

data() { echo "$work/$1/data"; }
mnt() { echo "$work/$1/mnt"; }

# One field of a node's status; lists and objects as JSON.
field() { # NODE FIELD
    timeout 10 tierce status --data "$(data "$1")" --json 2>/dev/null |
        python3 -c 'import json, sys
value = json.load(sys.stdin)[sys.argv[1]]
print(value if isinstance(value, str) else json.dumps(value))' "$2" 2>/dev/null
}

voters() {
    field "$1" members |
        python3 -c 'import json, sys
print(sum(m["voter"] and m["reachable"] for m in json.load(sys.stdin)))' 2>/dev/null
}

wait_until() { # SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "waited in vain until $what"
        sleep 0.05
    done
}

three_voters() { [ "$(voters a)" = 3 ]; }

remember_pid() {
    pids[$1]=$(field "$1" pid) || fail "node $1 does not say its process id"
}

running() { # PID: a zombie that nobody has reaped yet has ended
    local state
    state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1) || return 1
    [ -n "$state" ] && [ "$state" != Z ]
}

ended() { ! running "$1"; }

free_port() {
    python3 -c 'import random, socket
while True:
    port = random.randrange(20000, 32000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break'
}

# ---- Cleaning up, whatever happened --------------------------------------------------

cleanup() {
    local status=$? name pid
    trap - EXIT
    if [ -n "$writer" ]; then
        kill "$writer" 2>/dev/null || true
    fi
    if [ -z "$work" ]; then
        exit $status
    fi
    if [ $status -ne 0 ]; then
        for name in "${nodes[@]}"; do
            for log in "$(data "$name")"/*log; do
                [ -f "$log" ] || continue
                echo "---- the end of $log" >&2
                tail -n 20 "$log" >&2
            done
        done
    fi
    for name in "${nodes[@]}"; do
        pid=$(field "$name" pid || true)
        for pid in $pid ${pids[$name]-}; do
            # Only a process that is still one of this cluster's.
            if tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$work/"; then
                kill -9 "$pid" 2>/dev/null || true
                # Its files are given back when it has ended, not when it was told to.
                for _ in $(seq 100); do
                    running "$pid" || break
                    sleep 0.05
                done
            fi
        done
        umount -l "$(mnt "$name")" 2>/dev/null || true
    done
    rm -rf --one-file-system "$work"
    exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- 1. Build ------------------------------------------------------------------------

say "Building tierce (into build/), after installing what it needs."
"$root/tests/lib/deps.sh"
binary=$("$root/tests/lib/build.sh" build)
PATH=$(dirname "$binary"):$PATH
export PATH
run tierce --version

work=$(mktemp -d "${TMPDIR:-/tmp}/tierce-quickstart-XXXXXX")
say "A directory for each node to mount at."
run mkdir -p "$(mnt a)" "$(mnt b)" "$(mnt c)"

# ---- 2. Three nodes ------------------------------------------------------------------

say "The first node makes the cluster: an id, a certificate authority, its own certificate, and" \
    "an empty name space. With a mountpoint it also starts and mounts. It prints the line with" \
    "which the next host joins."
run tierce init --data "$(data a)" --listen "127.0.0.1:$(free_port)" --name a "$(mnt a)" |
    tee "$work/init.out"
remember_pid a
token=$(grep -o 'tierce1:[^[:space:]]*' "$work/init.out" | head -n 1) ||
    fail "init printed no join line"

say "The second joins with that line. The token in it works once, and pins the cluster's" \
    "authority: nobody can stand in between."
run tierce join "$token" --data "$(data b)" --listen "127.0.0.1:$(free_port)" --name b \
    "$(mnt b)"
remember_pid b

say "For the third, ask any node for a fresh token."
echo "\$ tierce invite --data $(data b)"
token=$(tierce invite --data "$(data b)")
echo "$token"
run tierce join "$token" --data "$(data c)" --listen "127.0.0.1:$(free_port)" --name c \
    "$(mnt c)"
remember_pid c

say "A new node votes once it has caught up, which takes a moment."
wait_until 30 "all three nodes vote" three_voters
run tierce status --data "$(data a)"

# ---- 3. One view ---------------------------------------------------------------------

say "Written through one mount, read through the others."
run_line "echo 'hello from a' > $(mnt a)/greeting"
run cat "$(mnt b)/greeting"
expect "greeting on b" "$(cat "$(mnt b)/greeting")" "hello from a"
expect "greeting on c" "$(cat "$(mnt c)/greeting")" "hello from a"

run mkdir "$(mnt b)/notes"
run_line "printf 'one\ntwo\n' > $(mnt c)/notes/list"
run_line "echo three >> $(mnt a)/notes/list"
run cat "$(mnt b)/notes/list"
expect "the list on b" "$(tr '\n' ' ' <"$(mnt b)/notes/list")" "one two three "
run ls -l "$(mnt c)"

say "The same keys without a mount."
run tierce put --data "$(data c)" /notes/answer 42
run tierce get --data "$(data a)" /notes/answer
echo
expect "the answer on b" "$(cat "$(mnt b)/notes/answer")" 42
run tierce ls --data "$(data b)" /notes

# ---- 4. The leader dies --------------------------------------------------------------

leader=$(field a leader)
survivors=()
for name in "${nodes[@]}"; do
    [ "$name" = "$leader" ] || survivors+=("$name")
done
[ ${#survivors[@]} -eq 2 ] || fail "the leader is '$leader', which is none of ${nodes[*]}"
through=${survivors[0]}
witness=${survivors[1]}

say "Node $leader leads. Now a loop writes through $through's mount, as fast as it goes, and notes when" \
    "each write returned:"
echo "#   while true; do echo \$((++n)) > $(mnt "$through")/beat; done"
write_beats() {
    local n=0
    while [ ! -e "$work/enough" ]; do
        n=$((n + 1))
        if echo "$n" >"$(mnt "$through")/beat"; then
            echo "$n $EPOCHREALTIME"
        else
            echo "$n error"
        fi
    done >"$work/beats" 2>"$work/beats.errors"
}
touch "$work/beats"
LC_ALL=C write_beats &
writer=$!
beats_beyond() { [ "$(wc -l <"$work/beats")" -gt "$1" ]; }
wait_until 30 "the loop writes" beats_beyond 100

say "kill -9 of the leader, in the middle of it."
run kill -9 "${pids[$leader]}"
killed_at=${EPOCHREALTIME/,/.}
new_leader() {
    local now
    now=$(field "$through" leader) && [ "$now" != null ] && [ "$now" != "$leader" ]
}
wait_until 30 "another node leads" new_leader
beats=$(wc -l <"$work/beats")
wait_until 30 "writes go on" beats_beyond $((beats + 100))
touch "$work/enough"
wait "$writer" || true
writer=

if grep error "$work/beats"; then
    cat "$work/beats.errors" >&2
    fail "a write failed: see above"
fi
# The longest time between two writes that returned, after the kill (and the last before it).
gap=$(awk -v killed="$killed_at" '
    NR > 1 && $2 > killed - 0.01 && $2 - last > gap { gap = $2 - last }
    { last = $2 }
    END { printf "%.3f", gap }' "$work/beats")
last=$(tail -n 1 "$work/beats" | cut -d ' ' -f 1)
say "Node $(field "$through" leader) leads now. $last writes returned, none failed; the longest" \
    "pause between two was $gap s."
run cat "$(mnt "$witness")/beat"
expect "the last write, read on $witness" "$(cat "$(mnt "$witness")/beat")" "$last"

# ---- 5. It comes back ----------------------------------------------------------------

say "Node $leader comes back: the same command starts it after a crash, a reboot or a stop."
wait_until 10 "the killed process has ended" ended "${pids[$leader]}"
run tierce mount --data "$(data "$leader")" "$(mnt "$leader")"
remember_pid "$leader"
commit=$(field "$through" commit)
caught_up() { [ "$(field "$leader" applied || echo 0)" -ge "$commit" ]; }
wait_until 30 "node $leader has caught up" caught_up
run tierce status --data "$(data "$leader")"
say "It has applied entry $(field "$leader" applied); the others had committed $commit."
run cat "$(mnt "$leader")/beat"
expect "the last write, read on $leader" "$(cat "$(mnt "$leader")/beat")" "$last"

# ---- 6. The end ----------------------------------------------------------------------

if [ $keep = yes ]; then
    say "The cluster is left running. Its mounts are"
    for name in "${nodes[@]}"; do
        echo "    $(mnt "$name")"
    done
    say "See how it is:"
    echo "    $binary status --data $(data a)"
    say "Stop and remove it:"
    for name in "${nodes[@]}"; do
        echo "    $binary stop --data $(data "$name")"
    done
    echo "    rm -r $work"
    work= # nothing to clean up
    exit 0
fi

say "A clean end: each node hands over what it leads, unmounts and exits."
for name in c b a; do
    run tierce stop --data "$(data "$name")"
    wait_until 10 "node $name has ended" ended "${pids[$name]}"
    if mountpoint -q "$(mnt "$name")"; then
        fail "$(mnt "$name") is still mounted"
    fi
done
say "Everything above was checked, and was as it should be."
