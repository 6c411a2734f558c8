#!/bin/sh
# The whole suite with the race detector, the end-to-end test included; counts what ran, failed and was skipped.
set -u
cd "$(dirname "$0")/.."
go=${GO:-go}
report=$(mktemp)
unsteady=$(mktemp)
trap 'rm -f "$report" "$unsteady"' EXIT
"$go" build -o bin/test-report ./scripts/test-report || exit 1
# Reasons that may skip in CI: what runs in make test-long or make bench only, and tests that only run as another test's child.
allow='long:,bench:,child:,hardware:,peer:'
{
	"$go" test -race -p 2 -timeout 40m -json ./...
	raced=$?
	# The search in virtual time, which the race detector does not understand: fixtures/virtual.
	"$go" test -count=1 -timeout 20m -json ./fixtures/virtual
	searched=$?
	[ $raced -eq 0 ] && exit $searched
	exit $raced
} >"$report" 2>&1 &
pid=$!
tail -f --pid=$pid "$report" 2>/dev/null | bin/test-report -allow "$allow" \
	-again "$go test -race -timeout 40m" -once images/ramdisk,test/e2e -unsteady "$unsteady"
verdict=$?
wait $pid
ran=$?
if [ $ran -ne 0 ] && [ $verdict -eq 0 ] && [ ! -s "$unsteady" ]; then
	echo "go test ended with $ran"
	exit $ran
fi
[ $verdict -eq 0 ] || exit $verdict
# A module of its own, so that its dependencies stay out of go.mod.
cd test/peers && "$go" vet ./... && "$go" test -count=1 ./...
