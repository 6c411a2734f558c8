#!/bin/sh
# Makes a small Debian 12 cloud image (raw, UEFI, cloud-init) from Debian's packages and caches it; prints the file of the raw image.
# It is a real Debian: systemd, cloud-init with its config-drive data sources, OpenSSH, the cloud kernel, systemd-boot.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${METALCTL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/metalctl}
id=$(sha256sum "$here/image-debian.sh" | cut -c1-12)
out=$cache/debian-12-$id.raw
if [ -s "$out" ]; then
	echo "$out"
	exit 0
fi
mkdir -p "$cache"
tmp=$(mktemp -d "$cache/image.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
root_uuid=6d657461-6c63-746c-8000-000000000001
say() { echo "image: $*" >&2; }

say "unpacking Debian 12 with cloud-init (about a minute)"
cat >"$tmp/customize.sh" <<'C'
#!/bin/sh
set -eu
root=$1
cat >"$root/etc/fstab" <<F
PARTUUID=6d657461-6c63-746c-8000-000000000001 / ext4 defaults,discard 0 1
F
echo localhost >"$root/etc/hostname"
: >"$root/etc/machine-id"
mkdir -p "$root/etc/cloud/cloud.cfg.d" "$root/etc/systemd/network"
cat >"$root/etc/cloud/cloud.cfg.d/90-datasource.cfg" <<F
datasource_list: [ConfigDrive, NoCloud, None]
F
cat >"$root/etc/cloud/cloud.cfg.d/91-image.cfg" <<F
apt_preserve_sources_list: true
package_update: false
resize_rootfs: true
F
printf '%s\n' ext4 nvme virtio_blk virtio_pci >>"$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
printf 'COMPRESS=zstd\n' >"$root/etc/initramfs-tools/conf.d/compress"
for t in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer dpkg-db-backup.timer; do
	ln -sf /dev/null "$root/etc/systemd/system/$t"
done
chroot "$root" update-initramfs -u -k all >/dev/null
rm -f "$root"/etc/ssh/ssh_host_*
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
C
chmod +x "$tmp/customize.sh"
mmdebstrap --quiet --variant=minbase --mode=root \
	--include=linux-image-cloud-amd64,initramfs-tools,zstd,systemd-sysv,udev,dbus,cloud-init,cloud-guest-utils,openssh-server,ifupdown,isc-dhcp-client,iproute2,sudo,ca-certificates \
	--aptopt='Apt::Install-Recommends "false"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook="$tmp/customize.sh" \
	bookworm "$tmp/root" >&2
cp "$tmp/root/boot/vmlinuz-"* "$tmp/vmlinuz"
cp "$tmp/root/boot/initrd.img-"* "$tmp/initrd"

say "making the file systems"
esp_mib=96 root_mib=$(($(du -sm "$tmp/root" | cut -f1) * 12 / 10 + 96))
cat >"$tmp/loader.conf" <<F
timeout 0
default debian.conf
F
cat >"$tmp/debian.conf" <<F
title Debian 12
linux /debian/vmlinuz
initrd /debian/initrd
options root=PARTUUID=$root_uuid ro console=tty0 console=ttyS0,115200 panic=30
F
truncate -s ${esp_mib}M "$tmp/esp"
mkfs.vfat -F 32 -n ESP -i 6d657461 "$tmp/esp" >/dev/null
mmd -i "$tmp/esp" ::/EFI ::/EFI/BOOT ::/EFI/debian ::/loader ::/loader/entries ::/debian
mcopy -i "$tmp/esp" /usr/lib/systemd/boot/efi/systemd-bootx64.efi ::/EFI/BOOT/BOOTX64.EFI
mcopy -i "$tmp/esp" "$tmp/loader.conf" ::/loader/loader.conf
mcopy -i "$tmp/esp" "$tmp/debian.conf" ::/loader/entries/debian.conf
mcopy -i "$tmp/esp" "$tmp/vmlinuz" ::/debian/vmlinuz
mcopy -i "$tmp/esp" "$tmp/initrd" ::/debian/initrd
truncate -s ${root_mib}M "$tmp/rootfs"
mke2fs -q -t ext4 -L root -O ^metadata_csum_seed -d "$tmp/root" "$tmp/rootfs"

say "writing the disk"
total=$((1 + esp_mib + root_mib + 1))
truncate -s ${total}M "$tmp/disk"
sgdisk -n 1:2048:+${esp_mib}M -t 1:ef00 -c 1:ESP -n 2:0:+${root_mib}M -t 2:8304 -c 2:root -u 2:$root_uuid "$tmp/disk" >/dev/null
dd if="$tmp/esp" of="$tmp/disk" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$tmp/rootfs" of="$tmp/disk" bs=1M seek=$((1 + esp_mib)) conv=notrunc,sparse status=none
sgdisk -v "$tmp/disk" | grep -q "No problems found" && sgdisk -i 2 "$tmp/disk" | grep -q -i "$root_uuid" || { say "the partition table is not what it should be"; exit 1; }
mv "$tmp/disk" "$out"
say "$(du -m "$out" | cut -f1) MiB of data in $total MiB"
echo "$out"
