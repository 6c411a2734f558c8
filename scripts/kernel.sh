#!/bin/sh
# Downloads a Debian kernel package into the cache without installing it, and prints its file.
# usage: kernel.sh cloud|generic
set -eu
case ${1:-} in
cloud) meta=linux-image-cloud-amd64 glob='linux-image-[0-9]*-cloud-amd64_*.deb' ;;
generic) meta=linux-image-amd64 glob='linux-image-[0-9]*[0-9]-amd64_*.deb' ;;
*) echo "usage: kernel.sh cloud|generic" >&2; exit 2 ;;
esac
cache=${METALCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/metalctl}/kernel
mkdir -p "$cache"
newest() { find "$cache" -name "$glob" | sort -V | tail -n 1; }
have=$(newest)
if [ -z "$have" ]; then
	tmp=$(mktemp -d "$cache/get.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	cd "$tmp"
	[ -n "$(apt-cache depends "$meta" 2>/dev/null)" ] || apt-get update -qq >&2
	pkg=$(apt-cache depends "$meta" | awk '/Depends:/ {print $2; exit}')
	echo "kernel: downloading $pkg" >&2
	apt-get download -qq "$pkg" >&2 2>/dev/null || { apt-get update -qq >&2; apt-get download -qq "$pkg" >&2; }
	mv "$pkg"_*.deb "$cache/"
	have=$(newest)
fi
echo "$have"
