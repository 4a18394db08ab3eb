#!/bin/sh
# Installs the Debian packages that only the tests use. Where that is not allowed, the tests that need one say so.
set -eu
wanted="strace openssh-server openssh-client rsync systemd systemd-container mmdebstrap iproute2 redis-server"
missing=""
for package in $wanted; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools/debian.sh: not root on Debian, so tests that need$missing will be skipped" >&2
    exit 0
fi
apt-get update --quiet --quiet
# A run level of single-user mode keeps a fresh sshd from being started on this machine.
# shellcheck disable=SC2086
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $missing >/dev/null
