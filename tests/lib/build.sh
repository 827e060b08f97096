#!/usr/bin/env bash
# build.sh BUILD [MESON OPTION...]: configures (or reconfigures) and builds the directory
# BUILD of the repository, quietly, and prints the path of its tierce binary. With ONLY in
# the environment it builds those targets of it and nothing else.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/$1
shift

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
    if ! "$@" >"$log" 2>&1 </dev/null; then
        echo "build: this failed: $*" >&2
        tail -n 60 "$log" >&2
        exit 1
    fi
}

# The distribution's own meson, whatever else is in PATH.
meson=/usr/bin/meson
[ -x "$meson" ] || meson=meson

if [ ! -f "$build/build.ninja" ]; then
    quietly "$meson" setup "$@" "$build" "$root"
elif [ $# -gt 0 ]; then
    quietly "$meson" configure "$build" "$@"
fi
# shellcheck disable=SC2086 # targets are words
quietly ninja -C "$build" -j2 ${ONLY:-}

for binary in "$build/tierce" "$build/src/cli/tierce"; do
    if [ -x "$binary" ]; then
        echo "$binary"
        exit 0
    fi
done
echo "build: $build has no tierce binary" >&2
exit 1
