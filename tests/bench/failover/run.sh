#!/usr/bin/env bash
# How long nothing is committed when the leader goes (tests/bench/failover/failover.py).
#
#   tests/bench/failover/run.sh [--kills N] [--stops N] [--hold-minutes M] [--smoke] [--check]
#
# As root: it mounts. Builds first, unless TIERCE_BINARY is set.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
if [ -z "${TIERCE_BINARY:-}" ]; then
    TIERCE_BINARY=$("$root/tests/lib/build.sh" build)
    export TIERCE_BINARY
fi
exec /usr/bin/python3 "$root/tests/bench/failover/failover.py" "$@"
