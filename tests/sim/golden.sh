#!/bin/sh
# Plays every script of traces/ and compares what happens with what stands there.
#   tests/sim/golden.sh [--update] [NAME...]      --update: writes it down instead
set -eu
cd "$(dirname "$0")"
simulator=${SIMULATOR:-../../${SIM_BUILD:-build}/tests/sim/simulator}
update=
[ "${1:-}" = --update ] && { update=1; shift; }
[ $# -gt 0 ] || set -- $(ls traces/*.txt | sed 's,traces/,,; s,\.txt$,,')
got=$(mktemp)
trap 'rm -f "$got"' EXIT
failed=0
for name; do
    if ! "$simulator" --play "traces/$name.txt" >"$got"; then
        echo "$name: the script fails" >&2
        failed=1
    elif [ -n "$update" ]; then
        cat "$got" >"traces/$name.txt"
    elif ! diff -u "traces/$name.txt" "$got" >&2; then
        echo "$name: another trace" >&2
        failed=1
    fi
done
[ $failed = 0 ] && echo "$# traces"
exit $failed
