#!/bin/sh
# Prints numbers as ratios against something that runs beside them on the same machine, in the same minutes.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
export METALCTL_BENCH=1
echo "metalctl bench, $(date -u +%Y-%m-%d), $(nproc) cores, $("$go" env GOVERSION)"
for pkg in ./agent/disk ./fleet/store ./images/ramdisk; do
	"$go" test -count=1 -timeout 30m -v -run 'Bench' "$pkg" | grep -v -E '^(=== |--- |PASS|ok )' || { echo "$pkg: no figures"; exit 1; }
done
