#!/usr/bin/env bash
# Measures a three-node mount against the local file system: a table, the marks, JSON lines.
#
#   tests/bench/run.sh [--smoke] [--json PATH] [--dir DIRECTORY] [--seconds S] [--check]
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/tests/lib/deps.sh"
TIERCE_BINARY=$("$root/tests/lib/build.sh" build)
export TIERCE_BINARY
exec /usr/bin/python3 "$root/tests/bench/bench.py" --bench "$root/build/tests/bench/bench" "$@"
