#!/usr/bin/env bash
# Installs what building and testing tierce needs, on Debian 12, and nothing that is there.
# Called by examples/quickstart.sh, tests/run.sh and tests/bench/run.sh.
set -euo pipefail

packages=(
    gcc libc6-dev meson ninja-build pkg-config
    libfuse3-dev fuse3 libevent-dev liburcu-dev libdeflate-dev libssl-dev libcmocka-dev
    python3 openssl procps util-linux iproute2 e2fsprogs
    git make patch vim sqlite3 rsync acl attr apt # run on mounts: tests/cluster/programs
)

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "deps: these packages are missing, run as root to install them: ${missing[*]}" >&2
        exit 1
    fi
    echo "Installing: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq -o DPkg::Lock::Timeout=120 </dev/null
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 \
        "${missing[@]}" </dev/null >/dev/null
fi

if [ ! -e /dev/fuse ]; then
    modprobe fuse 2>/dev/null || true
    if [ ! -e /dev/fuse ]; then
        echo "deps: there is no /dev/fuse; load the kernel's fuse module, or (in a container)" \
            "run it with --device /dev/fuse --cap-add SYS_ADMIN" >&2
        exit 1
    fi
fi
