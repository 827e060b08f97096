#!/usr/bin/env bash
# Builds with warnings as errors and runs every test. Installs what is missing (as root).
#
#   tests/run.sh [PART...]
#
# Parts, in their order; without any, all are run:
#   includes      who may include whom, and the folders' READMEs
#   unit          unit tests and the replay of the fuzz corpora
#   asan          the same with address and undefined-behaviour sanitizers
#   tsan          those of the threaded parts with the thread sanitizer
#   sim           the simulator: golden traces, and ten thousand seeds (tests/sim)
#   cluster       real processes and mounts (tests/cluster)
#   posix         rules of one host's file system, between hosts (tests/cluster/posix)
#   programs      git, make, sqlite3, rsync, dpkg and the like on mounts (tests/cluster/programs)
#   torture       ten minutes of all faults at once on hosts of their own, histories checked
#                 (tests/cluster/torture.sh; TORTURE_MINUTES says how long)
#   asan-cluster  a short part of them with address and undefined-behaviour sanitizers; a leak
#                 is told when a node ends
#   tsan-cluster  a short part of them with the thread sanitizer
#   quickstart    examples/quickstart.sh
#   bench         that the benchmarks of tests/bench run and print
# Those that mostly wait (cluster, posix, programs, torture) run beside those that compute (unit
# to sim, and the sanitized ones), unless SERIAL=1; what they print comes when they have ended.
# And, only by name: `build`, which only builds, and `mutations`: changes that the tests must
# notice (tests/mutate, tests/sim/mutate.py), which takes longer than all the rest. The last line
# counts single tests over all parts; the exit code is not 0 where one failed.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1

all_parts=(includes unit asan tsan sim cluster posix programs torture asan-cluster tsan-cluster
    quickstart bench)
waiting_parts=' cluster posix programs torture '
computing_parts=' unit asan tsan sim asan-cluster tsan-cluster '
# What takes longer hangs: tests have deadlines of their own, which a slow machine keeps.
hang_seconds=3600
# What runs more than one thread over shared memory: names of meson tests.
tsan_tests=('store_*' 'wire_*' 'node_*' 'fs_mount*')
# What the sanitized builds run of each cluster test: parts of names.
asan_cluster=(
    "test_view.py test_writes_at_any_offset test_writers_of test_appends test_rename"
    "test_failover.py test_all_killed_at_once"
    "test_cli.py test_keys_without_a_mount test_umount_is_stop test_stop"
    "test_port.py test_garbage test_without_a_certificate"
    "test_conformance.py hello unknown pieces truncated oversized answers sent_again"
    "test_merge.py test_a_wiped test_rot_is_healed"
    "test_backup.py test_one_moment test_the_log_stays"
    "test_inspect.py test_one_file test_what_was_merged"
    "test_certs.py test_the_ca_is_replaced test_killed"
    "test_recover.py test_killed"
    "test_sessions.py test_exactly_once"
    "posix/test_link.py test_on_a_follower"
    "posix/test_rename.py test_on_a_follower"
    "posix/test_setid.py test_on_a_follower"
    "programs/test_editors.py test_sed_in_place"
    "programs/test_sqlite.py test_killed"
    "programs/test_tar.py test_tar"
)
tsan_cluster=(
    "test_view.py test_writes_at_any_offset test_writers_of test_appends test_replace_is_whole"
    "test_failover.py test_all_killed_at_once"
    "test_cli.py test_keys_without_a_mount test_umount_is_stop test_stop"
    "test_merge.py test_a_wiped test_rot_is_healed"
    "test_certs.py test_the_ca_is_replaced test_killed"
    "test_sessions.py test_exactly_once"
)

tsan_options=halt_on_error=1:suppressions=$root/tests/lib/tsan.supp

usage() { sed -n 's/^# \{0,1\}//; 2,26p' "$0"; }

parts=()
for argument in "$@"; do
    case $argument in
    --help | -h)
        usage
        exit 0
        ;;
    build | includes | unit | asan | tsan | sim | cluster | posix | programs | \
        torture | asan-cluster | tsan-cluster | quickstart | bench | mutations)
        parts+=("$argument")
        ;;
    *)
        usage >&2
        exit 2
        ;;
    esac
done
[ ${#parts[@]} -gt 0 ] || parts=("${all_parts[@]}")

python=/usr/bin/python3
meson=/usr/bin/meson
work=$(mktemp -d)
mkfifo "$work/pipe"
child='' lane_pid=''
declare -A binaries=() # of what was built in this run
total_passed=0 total_failed=0 total_skipped=0
failures=()

cleanup() {
    if [ -n "$child" ] && kill "$child" 2>/dev/null; then
        wait "$child" 2>/dev/null
    fi
    if [ -n "$lane_pid" ] && kill "$lane_pid" 2>/dev/null; then
        wait "$lane_pid" 2>/dev/null
    fi
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

add() { # PASSED FAILED SKIPPED
    total_passed=$((total_passed + $1))
    total_failed=$((total_failed + $2))
    total_skipped=$((total_skipped + $3))
}

fail_one() { # WHAT
    echo "FAIL $1"
    failures+=("$1")
    add 0 1 0
}

# Runs a command for at most SECONDS, shows its output and leaves it in $work/output. It is a
# child that a signal to this script can end: its own clean-up runs.
run_limited() { # SECONDS COMMAND...
    local seconds=$1 status printer
    shift
    timeout $((seconds + 90)) tee "$work/output" <"$work/pipe" &
    printer=$!
    timeout --kill-after=60 "$seconds" "$@" </dev/null >"$work/pipe" 2>&1 &
    child=$!
    wait $child
    status=$?
    child=
    wait $printer
    if [ $status -eq 124 ] || [ $status -eq 137 ]; then
        echo "stopped after $seconds s: $*"
    fi
    return $status
}

# Takes the counts from the last line of $work/output, and its lines that tell of a failure. A
# command that failed and counts no failure, or that printed no count, is a failure of its own.
take_counts() { # WHAT STATUS
    local last counts told
    last=$(tail -n 1 "$work/output")
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        counts=("${BASH_REMATCH[@]:1}")
        add "${counts[@]}"
        if [ "${counts[1]}" -gt 0 ]; then
            mapfile -t told < <(sed -n "s|^FAIL |$1: |p" "$work/output")
            failures+=("${told[@]:-$1}")
        elif [ "$2" -ne 0 ]; then
            fail_one "$1 (exit code $2)"
        elif [ $((counts[0] + counts[2])) -eq 0 ]; then
            fail_one "$1 ran no test"
        fi
    else
        fail_one "$1 (exit code $2, no count)"
    fi
}

build() { # DIRECTORY OPTIONS...
    local begun=$SECONDS
    binary=${binaries[$1]:-}
    [ -z "$binary" ] || return 0
    run_limited $hang_seconds tests/lib/build.sh "$@" || return 1
    binary=$(tail -n 1 "$work/output")
    binaries[$1]=$binary
    echo "built $1 in $((SECONDS - begun)) s"
}

build_asan() {
    build build-asan -Dwerror=true -Db_sanitize=address,undefined -Db_lundef=false
}

# Its memory layout does not stand much randomisation of addresses: run it by `setarch -R`.
build_tsan() {
    build build-tsan -Dwerror=true -Db_sanitize=thread -Db_lundef=false
}

meson_tests() { # WHAT SECONDS BUILD TEST...
    local what=$1 seconds=$2 directory=$3
    shift 3
    rm -f "$directory"/meson-logs/testlog*
    run_limited "$seconds" "$meson" test -C "$directory" --no-rebuild --num-processes 2 \
        --print-errorlogs "$@"
    local status=$?
    # With a wrapper the log's name has the wrapper's in it.
    "$python" tests/lib/count_meson.py "$directory"/meson-logs/testlog*.json |
        tee "$work/output"
    take_counts "$what" $status
}

# The names of a build's meson tests that match one of the patterns.
matching_tests() { # BUILD PATTERN...
    local directory=$1 name pattern
    shift
    "$meson" test -C "$directory" --no-rebuild --list 2>/dev/null | sed 's/.* //' |
        while read -r name; do
            for pattern in "$@"; do
                # shellcheck disable=SC2053 # the pattern is one
                if [[ $name == $pattern ]]; then
                    echo "$name"
                    break
                fi
            done
        done
}

# ---- The parts -----------------------------------------------------------------------

# The program of the next version, for the test of an upgrade; nothing else of it is built.
build_raised() {
    ONLY=src/cli/tierce build build-raised -Dwerror=true -Draise_version=true
}

part_build() { build build -Dwerror=true || fail_one 'build'; }

part_includes() {
    run_limited $hang_seconds tests/check_includes
    take_counts includes $?
}

part_unit() {
    build build -Dwerror=true || { fail_one 'build'; return; }
    meson_tests unit $hang_seconds build --timeout-multiplier 5
}

part_asan() {
    build_asan || { fail_one 'build with address sanitizer'; return; }
    # An allocation of absurd size is to fail, as it does without the sanitizer: it is tested.
    ASAN_OPTIONS=detect_stack_use_after_return=1:allocator_may_return_null=1 \
        UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        meson_tests asan $hang_seconds build-asan --timeout-multiplier 15
}

part_tsan() {
    build_tsan || { fail_one 'build with thread sanitizer'; return; }
    local tests
    mapfile -t tests < <(matching_tests build-tsan "${tsan_tests[@]}")
    if [ ${#tests[@]} -eq 0 ]; then
        fail_one 'tsan: no test has one of its names'
        return
    fi
    TSAN_OPTIONS=$tsan_options meson_tests tsan $hang_seconds build-tsan --timeout-multiplier 25 \
        --wrapper 'setarch -R' "${tests[@]}"
}

# Seeds of one place each time: those that failed once are among the golden traces.
part_sim() {
    build build -Dwerror=true || { fail_one 'build'; return; }
    export SIMULATOR=$root/build/tests/sim/simulator
    if run_limited $hang_seconds tests/sim/golden.sh; then
        add "$(tail -n 1 "$work/output" | cut -d ' ' -f 1)" 0 0
    else
        fail_one 'golden traces of the simulator'
    fi
    if run_limited $hang_seconds tests/sim/mutate.py --check; then
        add 1 0 0
    else
        fail_one 'the mutations for the simulator do not fit the sources'
    fi
    if run_limited $hang_seconds tests/sim/run.sh --twice --seeds 5; then
        add 1 0 0
    else
        fail_one 'a seed of the simulator gives two traces'
    fi
    if run_limited $((3 * hang_seconds)) tests/sim/run.sh --seeds 10000 --jobs 2; then
        add 10000 0 0
    else
        fail_one 'the simulator'
    fi
}

part_cluster() {
    build_raised || { fail_one 'build of the next version'; return; }
    local raised=$binary
    build build -Dwerror=true || { fail_one 'build'; return; }
    local file
    for file in tests/cluster/test_*.py; do
        TIERCE_BINARY=$binary TIERCE_RAISED_BINARY=$raised run_limited $hang_seconds "$python" "$file"
        take_counts "$file" $?
    done
}

part_posix() {
    build build -Dwerror=true || { fail_one 'build'; return; }
    local file
    for file in tests/cluster/posix/test_*.py; do
        TIERCE_BINARY=$binary run_limited $hang_seconds "$python" "$file"
        take_counts "$file" $?
    done
}

part_programs() {
    build build -Dwerror=true || { fail_one 'build'; return; }
    local file
    for file in tests/cluster/programs/test_*.py; do
        TIERCE_BINARY=$binary run_limited $hang_seconds "$python" "$file"
        take_counts "$file" $?
    done
}

part_torture() {
    build build -Dwerror=true || { fail_one 'build'; return; }
    local minutes=${TORTURE_MINUTES:-10}
    TIERCE_BINARY=$binary run_limited $((minutes * 60 + hang_seconds)) tests/cluster/torture.sh \
        --minutes "$minutes"
    take_counts torture $?
}

# Parts of the cluster's tests, with more patience.
cluster_smoke() { # WHAT LINE...: a line is a file and parts of its tests' names
    local what=$1 line words
    shift
    for line in "$@"; do
        read -ra words <<<"$line"
        TIERCE_BINARY=$binary run_limited $hang_seconds setarch -R "$python" \
            "tests/cluster/${words[0]}" --patience 3 "${words[@]:1}"
        take_counts "${words[0]} with $what sanitizer" $?
    done
}

part_asan-cluster() {
    build_asan || { fail_one 'build with address sanitizer'; return; }
    cluster_smoke address "${asan_cluster[@]}"
}

part_tsan-cluster() {
    build_tsan || { fail_one 'build with thread sanitizer'; return; }
    TSAN_OPTIONS=$tsan_options cluster_smoke thread "${tsan_cluster[@]}"
}

part_quickstart() {
    local before
    before=$(git status --porcelain 2>/dev/null)
    if run_limited $hang_seconds examples/quickstart.sh; then
        add 1 0 0
    else
        fail_one quickstart
    fi
    if [ "$(git status --porcelain 2>/dev/null)" = "$before" ]; then
        add 1 0 0
    else
        git status --short
        fail_one 'quickstart leaves files that git sees'
    fi
}

part_bench() {
    run_limited $hang_seconds tests/bench/run.sh --smoke --json "$work/bench.json"
    local status=$? lines
    lines=$(wc -l <"$work/bench.json" 2>/dev/null || echo 0)
    # 9 operations, 1 and 16 threads, on 4 places but for `synced` of what changes nothing.
    if [ $status -eq 0 ] && [ "$lines" -eq 64 ] && grep -q '^mark: ' "$work/output"; then
        add 1 0 0
    else
        fail_one "bench (exit code $status, $lines JSON lines)"
    fi
    run_limited $hang_seconds tests/bench/store/run.sh --smoke
    status=$?
    lines=$(grep -c '^{"row":' "$work/output")
    if [ $status -eq 0 ] && [ "$lines" -eq 17 ]; then
        add 1 0 0
    else
        fail_one "bench of the store (exit code $status, $lines JSON lines)"
    fi
    run_limited $hang_seconds tests/bench/raft/run.sh --smoke
    status=$?
    lines=$(grep -c '^{"row":' "$work/output")
    if [ $status -eq 0 ] && [ "$lines" -eq 4 ]; then
        add 1 0 0
    else
        fail_one "bench of consensus (exit code $status, $lines JSON lines)"
    fi
    run_limited $hang_seconds tests/bench/failover/run.sh --smoke
    status=$?
    lines=$(grep -c '^{"row":' "$work/output")
    if [ $status -eq 0 ] && [ "$lines" -eq 4 ]; then
        add 1 0 0
    else
        fail_one "bench of failover (exit code $status, $lines JSON lines)"
    fi
    run_limited $hang_seconds tests/bench/fs/run.sh --smoke
    status=$?
    lines=$(grep -c '^{"row":' "$work/output")
    if [ $status -eq 0 ] && [ "$lines" -eq 18 ]; then
        add 1 0 0
    else
        fail_one "bench of files (exit code $status, $lines JSON lines)"
    fi
}

part_mutations() {
    run_limited $((6 * hang_seconds)) tests/mutate
    take_counts mutations $?
    run_limited $((6 * hang_seconds)) tests/sim/mutate.py
    take_counts 'mutations for the simulator' $?
}

# ---- All together --------------------------------------------------------------------

begun=$SECONDS
if ! tests/lib/deps.sh; then
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi

run_part() { # PART
    local part_begun=$SECONDS
    echo "==== $1"
    "part_$1"
    echo "==== $1 took $((SECONDS - part_begun)) s"
}

# Parts beside others: in a scratch directory and with counts of its own, which it leaves there.
run_lane() ( # DIRECTORY PART...
    work=$1 total_passed=0 total_failed=0 total_skipped=0 failures=()
    lane_pid=
    shift
    trap '[ -z "$child" ] || { kill "$child" && wait "$child"; }; exit 143' TERM
    mkdir "$work" && mkfifo "$work/pipe" || exit 1
    for part in "$@"; do
        run_part "$part"
    done
    printf '%s\n' "$total_passed $total_failed $total_skipped" "${failures[@]}" >"$work/counts"
)

take_lane() { # DIRECTORY
    local counts lines
    if [ ! -s "$1/counts" ]; then
        fail_one 'parts that ran beside others ended without counts'
        return
    fi
    mapfile -t lines <"$1/counts"
    read -ra counts <<<"${lines[0]}"
    add "${counts[@]}"
    for line in "${lines[@]:1}"; do
        [ -z "$line" ] || failures+=("$line")
    done
}

run_beside() { # what is in $waiting and in $computing
    # Nobody builds while another tests what is built. What fails here fails again in its part.
    build build -Dwerror=true
    [[ " ${waiting[*]} " != *' cluster '* ]] || build_raised
    [[ " ${computing[*]} " != *' asan'* ]] || build_asan
    [[ " ${computing[*]} " != *' tsan'* ]] || build_tsan
    run_lane "$work/lane" "${waiting[@]}" >"$work/lane.log" 2>&1 &
    lane_pid=$!
    local part
    for part in "${computing[@]}"; do
        run_part "$part"
    done
    wait $lane_pid
    lane_pid=
    cat "$work/lane.log"
    take_lane "$work/lane"
}

waiting=() computing=()
for part in "${parts[@]}"; do
    [[ $waiting_parts != *" $part "* ]] || waiting+=("$part")
    [[ $computing_parts != *" $part "* ]] || computing+=("$part")
done
if [ ${#waiting[@]} -eq 0 ] || [ ${#computing[@]} -eq 0 ] || [ -n "${SERIAL:-}" ]; then
    waiting=() computing=()
fi
beside=" ${waiting[*]} ${computing[*]} " ran_beside=
for part in "${parts[@]}"; do
    if [[ $beside != *" $part "* ]]; then
        run_part "$part"
    elif [ -z "$ran_beside" ]; then
        run_beside
        ran_beside=yes
    fi
done

echo "All took $((SECONDS - begun)) s."
for failure in "${failures[@]}"; do
    echo "failed: $failure"
done
echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
[ $total_failed -eq 0 ]
