#!/bin/sh
# Repeats the crash and fault stories with new seeds for SOAK (default 30m).
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
end=$(($(date +%s) + $(echo "${SOAK:-30m}" | awk '/m$/ {print $1*60; next} /h$/ {print $1*3600; next} {print $1+0}')))
round=0
while [ "$(date +%s)" -lt "$end" ]; do
	round=$((round + 1))
	echo "soak round $round"
	METALCTL_SEED=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ') "$go" test -count=1 -timeout 20m ./fleet/... ./redfish/... ./fixtures/...
done
echo "soak: $round rounds without a failure"
