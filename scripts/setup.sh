#!/bin/sh
# Installs what building, the demo and the tests need on Debian 12, and says what it installs. Does nothing where all is there.
set -eu
want="gcc libc6-dev make git ca-certificates
qemu-system-x86 qemu-utils ovmf systemd-boot-efi
mmdebstrap mtools dosfstools e2fsprogs gdisk xorriso zstd xz-utils util-linux
iproute2 openssh-client openssl python3-sushy python3-junitparser
opensm ibsim-utils openvswitch-switch"
missing=
for p in $want; do
	dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -q '^installed$' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ]; then
	echo "setup: these Debian packages are needed; install them as root:" >&2
	echo "  apt-get install --no-install-recommends$missing" >&2
	exit 1
fi
echo "setup: installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
echo "setup: done"
