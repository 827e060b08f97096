#!/usr/bin/env bash
# Measures consensus (tests/bench/raft/raft.py): a line of JSON for each row, beside its
# yardstick and mark.
#
#   tests/bench/raft/run.sh [--smoke] [--check] [--seconds S] [--dir DIRECTORY] [ROW...]
#
# Rows: throughput latency catch-up; all take some two minutes and 6 GiB of disk.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
"$root/tests/lib/deps.sh"
TIERCE_BINARY=$("$root/tests/lib/build.sh" build)
export TIERCE_BINARY
exec /usr/bin/python3 "$root/tests/bench/raft/raft.py" \
    --bench "$root/build/tests/bench/raft/raft_bench" "$@"
