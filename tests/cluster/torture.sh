#!/usr/bin/env bash
# Everything that happens to hosts, all mixed, with histories checked (tests/cluster/torture.py).
#
#   tests/cluster/torture.sh [--minutes N] [--seed S] [--nodes 3|5] [--keep] [--verbose]
#
# As root: it makes network namespaces and mounts. Builds first, unless TIERCE_BINARY is set.
# Whatever becomes of it, nothing is left but, with --keep, the directory of a failure.
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
python=/usr/bin/python3

if [ -z "${TIERCE_BINARY:-}" ]; then
    TIERCE_BINARY=$("$root/tests/lib/build.sh" build) || exit 1
    export TIERCE_BINARY
fi

"$python" "$root/tests/cluster/torture.py" "$@" &
child=$!
# It cleans up after itself when it is told to end; what a kill -9 leaves is swept.
trap 'kill "$child" 2>/dev/null' INT TERM HUP
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
"$python" "$root/tests/cluster/torture.py" --sweep "$child"
exit "$status"
