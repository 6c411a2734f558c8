#!/bin/sh
# Prints numbers as ratios against something that runs beside them on the same machine, in the same minutes.
set -eu
cd "$(dirname "$0")/.."
go=${GO:-go}
export METALCTL_BENCH=1

# What else runs on the machine should disturb nobody's figures: both sides of every comparison run with the same priority, before everything else.
group=/proc/self/autogroup
if [ "$(id -u)" = 0 ] && [ -w $group ] && [ "$(cat /proc/sys/kernel/sched_autogroup_enabled)" = 1 ]; then
	before=$(sed -n 's/.* nice //p' $group)
	trap 'echo "$before" > /proc/self/autogroup' EXIT
	trap 'exit 130' INT TERM
	echo -20 > $group
	priority="the bench before all others"
else
	priority="no priority over what else runs here"
fi

section() {
	echo
	echo "== $1 (load average $(cut -d' ' -f1-3 /proc/loadavg))"
}

# measure prints what a test prints, less the frame that go test puts around it.
measure() {
	pkg=$1 pattern=$2
	report=$("$go" test -count=1 -timeout 30m -v -run "$pattern" "$pkg" 2>&1) || { echo "$report"; exit 1; }
	echo "$report" | grep -v -E '^(=== |--- |PASS|ok )|^ +(--- |.*[0-9]s metalctl )' || { echo "$pkg: no figures"; exit 1; }
}

echo "metalctl bench, $(date -u +%Y-%m-%d), $(git rev-parse --short HEAD 2>/dev/null || echo 'no commit'), $(nproc) cores ($(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)), $("$go" env GOVERSION), $priority"

section "image write and read-back, 1 GiB, medians of 5 rounds"
METALCTL_BENCH_FORMATS=raw METALCTL_BENCH_RUNS=5 measure ./agent/disk '^TestBench$'
section "packed images, 512 MiB that pack to half, medians of 3 rounds"
METALCTL_BENCH_FORMATS=raw.zst,raw.gz,qcow2 METALCTL_BENCH_MIB=512 METALCTL_BENCH_RUNS=3 measure ./agent/disk '^TestBench$'
section "xz, 64 MiB only: its decoder is slow, medians of 3 rounds"
METALCTL_BENCH_FORMATS=raw.xz METALCTL_BENCH_MIB=64 METALCTL_BENCH_RUNS=3 measure ./agent/disk '^TestBench$'
section "boot medium by part: bytes, and bytes in the ISO (limit 25 MiB)"
measure ./images/ramdisk '^TestFullSize$'
section "eight GPUs by NVIDIA's library, through its fixture"
measure ./agent/gpu '^TestBench$'
measure ./cmd/metalctl '^TestBenchInspect$'
section "report of a burn-in of 72 hours: a page under 5 MiB that a browser shows within 2 s"
measure ./fleet/report '^TestBench$'
section "watching a machine that is burned in, of one core"
measure ./agent/burn '^TestBenchSampling$'
section "2,040 of 2,048 HCAs move to other tenants, on a real OpenSM in a simulated fabric"
measure ./provision/fabric/opensm '^TestRepartitionBench$'
section "10,000 ports of one switch, planned and taken back"
measure ./fleet '^TestBench$'
section "128 of 10,000 nodes"
measure ./fleet/allocate '^TestBench$'
section "64 ports of a real Open vSwitch"
measure ./provision/ethernet/ovs '^TestBench$'
section "durable node create beside a raw group-committed put"
measure ./fleet/store '^TestBench$'
section "power-on to the agent's first word, and the server's memory"
measure ./test/e2e '^TestBench'
section "10,000 nodes at rest, and a server that is killed and started; Ironic's figures are quoted, measured elsewhere on two cores"
measure ./test/herd '^TestBenchRest$'
section "whole tenancies of 200 nodes at once, without hardware time"
measure ./test/herd '^TestBench(Engine|Cycles)$'
echo
echo "load average at the end: $(cut -d' ' -f1-3 /proc/loadavg)"
