#!/bin/sh
# A long run: MINUTES (default 30) of a herd of NODES (default 2000) before a real server that is killed at random, then new seeds of the crash and fault
# stories and of the search in virtual time for SEEDS minutes (default none). METALCTL_SEED repeats a run; METALCTL_SOAK_SPEED is how much faster than in
# life things fail (default 100).
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
minutes=${MINUTES:-30}
seeds=${SEEDS:-0}
case "$minutes$seeds" in *[!0-9]*) echo "soak: MINUTES and SEEDS are whole numbers, not '$minutes' and '$seeds'" >&2; exit 2 ;; esac

if [ "$minutes" -gt 0 ]; then
	METALCTL_SOAK_MINUTES=$minutes METALCTL_SOAK_NODES=${NODES:-2000} "$go" test -count=1 -v -timeout $((minutes + 90))m -run '^TestSoak$' ./test/herd
fi

end=$(($(date +%s) + seeds * 60))
round=0
while [ "$(date +%s)" -lt "$end" ]; do
	round=$((round + 1))
	seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
	echo "soak: seeds, round $round, METALCTL_SEED=$seed"
	METALCTL_SEED=$seed "$go" test -count=1 -timeout 20m ./fleet/... ./redfish/... ./fixtures/...
done
[ "$round" -eq 0 ] || echo "soak: $round rounds of new seeds without a failure"
