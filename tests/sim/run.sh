#!/bin/sh
# Runs the simulator: tests/sim/run.sh --seeds N --from S [--jobs J], or one seed with its
# trace: --seed S --trace. Builds it first, where $SIMULATOR does not name one.
set -eu
cd "$(dirname "$0")/../.."
if [ -z "${SIMULATOR:-}" ]; then
    build=${SIM_BUILD:-build}
    [ -d "$build" ] || meson setup "$build" -Dwerror=true >/dev/null
    ninja -C "$build" tests/sim/simulator >/dev/null
    SIMULATOR=$build/tests/sim/simulator
fi
exec "$SIMULATOR" "$@"
