#!/usr/bin/env bash
# Measures the store in process: a line of JSON for each row, beside its yardstick and mark.
#
#   tests/bench/store/run.sh [--smoke] [--check] [--dir DIRECTORY] [ROW...]
#
# Rows: append written overwrite single get beside-writer keys scan beside-merges; all take some ten
# minutes, 12 GiB of disk in DIRECTORY (default: a temporary one) and 8 GiB of memory.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
"$root/tests/lib/deps.sh"
"$root/tests/lib/build.sh" build >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/build/tests/bench/store/store_bench" --dir "$work" "$@"
