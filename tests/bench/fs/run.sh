#!/usr/bin/env bash
# Measures a mount of three nodes beside the local file system of the same disk
# (tests/bench/fs/fs.py): a line of JSON for each row, beside its yardstick and mark.
#
#   tests/bench/fs/run.sh [--smoke] [--check] [--seconds S] [--files N] [--dir DIRECTORY]
#                         [--on follower|leader] [ROW...]
#
# Rows: sequential overwrite append turns tree files; all take some ten minutes and 20 GiB of disk, and
# with `--files 1000000`, which is what the marks of `files` are for, more than an hour.
set -euo pipefail

root=$(cd "$(dirname "$0")/../../.." && pwd)
"$root/tests/lib/deps.sh"
TIERCE_BINARY=$("$root/tests/lib/build.sh" build)
export TIERCE_BINARY
exec /usr/bin/python3 "$root/tests/bench/fs/fs.py" \
    --bench "$root/build/tests/bench/fs/fs_bench" "$@"
