#!/bin/bash
# The main job on a simulated rack: two machines with UEFI firmware go from a BMC address to a booted tenant image and back.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
m=$root/bin/metalctl
dir=${DEMO_DIR:-$root/.cache/demo}
rm -rf "$dir"
mkdir -p "$dir"
chmod 700 "$dir"
started=$(date +%s)
bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
times=()
stage_name= stage_start=0
stage() {
	stage_end
	stage_name=$1 stage_start=$(date +%s%N)
	printf '\n'
	bold "== $1"
}
stage_end() {
	[ -n "$stage_name" ] || return 0
	times+=("$(awk -v ns=$(($(date +%s%N) - stage_start)) -v name="$stage_name" 'BEGIN {printf "%7.1f s  %s", ns/1e9, name}')")
	stage_name=
}
show() { printf '$ metalctl %s\n' "$*"; "$m" "$@"; }
server=
cleanup() {
	code=$?
	trap - EXIT INT TERM
	if [ -n "${KEEP:-}" ] && [ $code -eq 0 ]; then
		printf '\nKEEP=1: server and machines go on running. To use them:\n'
		printf '  export METALCTL_SERVER=%s METALCTL_TOKEN_FILE=%s METALCTL_CACERT=%s\n' "$METALCTL_SERVER" "$METALCTL_TOKEN_FILE" "$METALCTL_CACERT"
		printf 'To end them:\n  bin/metalctl sim down --dir %s; kill %s\n' "$dir/rack" "$server"
		exit 0
	fi
	if [ $code -ne 0 ]; then
		printf '\nThe demo failed (exit code %d). What the server said last:\n' "$code"
		tail -n 20 "$dir/server.log" 2>/dev/null || true
		printf 'Serial logs: %s\n' "$dir"/rack/*/serial.log
	fi
	"$m" sim down --dir "$dir/rack" >/dev/null 2>&1 || true
	[ -z "$server" ] || { kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; }
	exit $code
}
trap cleanup EXIT INT TERM

stage "Prepare: a Debian kernel, a real Debian cloud image (both cached), the boot ISO"
kernel=$(scripts/kernel.sh cloud)
image=$(scripts/image-debian.sh)
[ -s "$image.zst" ] || { zstd -q -T0 -3 "$image" -o "$image.zst.part" && mv "$image.zst.part" "$image.zst"; }
show ramdisk build --lab --kernel "$kernel" -o "$dir/boot.iso"

stage "A rack: two machines with UEFI firmware, NVMe disks and Redfish BMCs; one is given the eight GPUs of an HGX H200"
cat >"$dir/lab.yaml" <<'LAB'
machines:
  - {name: demo-1, personality: ami-dgx-h100, mode: qemu, profile: hgx-h200, class: hgx-h200, cpus: 2, memory_bytes: 1073741824, disks: [{size_bytes: 4294967296}, {size_bytes: 1073741824}]}
  - {name: demo-2, personality: generic, mode: qemu, class: demo, cpus: 2, memory_bytes: 1073741824, disks: [{size_bytes: 4294967296}, {size_bytes: 1073741824}]}
LAB
show sim up -f "$dir/lab.yaml" --dir "$dir/rack" --detach -o table

stage "The fleet server"
"$m" server --listen 127.0.0.1:0 --data-dir "$dir/data" --ramdisk "$dir/boot.iso" --advertise-nodes https://10.0.2.2 2>"$dir/server.log" &
server=$!
for _ in $(seq 300); do grep -q '^metalctl server at' "$dir/server.log" && break; kill -0 $server 2>/dev/null || { cat "$dir/server.log"; exit 1; }; sleep 0.1; done
export METALCTL_SERVER METALCTL_TOKEN_FILE="$dir/data/admin.token" METALCTL_CACERT="$dir/data/ca.pem"
METALCTL_SERVER=$(sed -n 's/^metalctl server at //p' "$dir/server.log" | head -1)
echo "serving at $METALCTL_SERVER"
cat >"$dir/fleet.yaml" <<'F'
kind: Site
isolation: none   # no switches here: said aloud, and repeated by node show
---
kind: Class
name: demo
expect: {nvme: {count: 2}}
burnin: none
erase: {level: clear}
---
kind: Class
name: hgx-h200    # the GPU side of the built-in class of that name; the rest is what QEMU has
expect:
  numa_nodes: 2
  nvme: {count: 2}
  gpus: {count: 8, model: "NVIDIA H200", memory_bytes: 150754820096, nvlinks_up: 18, pcie: {generation: 5, width: 16}}
  infiniband: {count: 8, rate_gbps: 400, link_layer: InfiniBand}
  nvswitches: 4
  topology: {wiring: hgx-hopper, rail: PIX, gpu_numa_nodes: [0, 0, 0, 0, 1, 1, 1, 1]}
burnin: none
erase: {level: clear}
F

stage "Enrol: reads only"
show site apply -f "$dir/fleet.yaml"
show node enroll -f "$dir/rack/nodes.yaml"

stage "Inspect: boot the agent from virtual media; nothing is erased"
show node inspect 'demo-[1-2]'
show node show demo-1

stage "What the agent found on demo-1: eight H200s, their NVLinks, rails and NUMA nodes, by NVIDIA's calls; nothing differs from the class"
show node topology demo-1
show node inventory demo-1 --diff

stage "Accept: these disks may be erased; erase and prove it"
show node accept 'demo-[1-2]' --yes

stage "Image: digest computed here, checked there"
show image add debian-12 --file "$image.zst" --format raw.zst

stage "Lease: write the image, boot the tenant's Debian with cloud-init"
ssh-keygen -q -t ed25519 -N '' -C demo-tenant -f "$dir/tenant"
cat >"$dir/user-data" <<'U'
#cloud-config
runcmd:
  - [sh, -c, 'echo "TENANT-PROOF hostname=$(hostname) user-data=ran instance=$(cloud-init query instance_id) key=$(cut -d" " -f3 /home/debian/.ssh/authorized_keys | head -1)" >/dev/ttyS0']
U
show lease create --name demo --node 'demo-[1-2]' --image debian-12 --hostname-template 'gpu-{index}.{lease}' --ssh-key "$dir/tenant.pub" --user-data "$dir/user-data" --grace 0s

stage "What the tenant's first boot proved"
for i in 1 2; do
	log=$dir/rack/demo-$i/serial.log
	for _ in $(seq 600); do grep -aq 'TENANT-PROOF' "$log" && break; sleep 1; done
	grep -ao 'TENANT-PROOF.*' "$log" | tail -1 | tr -d '\r' | sed "s/^TENANT-PROOF/demo-$i:/"
done

stage "Release: isolate, power off, clean"
show lease release demo --yes
show wait node/demo-1 --for state=available --timeout 20m
show wait node/demo-2 --for state=available --timeout 20m
show node list -o table
stage_end

printf '\n'
bold "Done in $(($(date +%s) - started)) s: two machines were enrolled, inspected, cleaned, leased, imaged, booted into Debian, released and cleaned again."
printf '%s\n' "${times[@]}"
cat <<'T'

Try next:
  KEEP=1 make demo                          keeps the rack and the server running
  bin/metalctl node timeline demo-1         every Redfish call, byte range and step on one line of time
  bin/metalctl operation list               what ran, and how long it took
  bin/metalctl bmc probe https://BMC --user U --password-file F --first-use    reads a real BMC, changes nothing
T
