package ramdisk

// moduleSets are the kernel modules that a ramdisk carries, by purpose. Their dependencies come along by themselves.
// What a kernel has built in or lacks is left out; Build lists what it lacks.
var moduleSets = []struct {
	name    string
	modules []string
}{
	{"storage", []string{
		"nvme", "vmd", "ahci", "megaraid_sas", "mpt3sas", "sd_mod", "usb_storage", "uas", "sr_mod",
		"isofs", "vfat", "nls_ascii", "nls_cp437", "nls_iso8859_1", "nls_utf8",
		"xhci_pci", "ehci_pci", "crc32c_generic", "crc32c_intel", "crct10dif_generic",
	}},
	{"network", []string{
		"mlx5_core", "bnxt_en", "ice", "igb", "ixgbe", "i40e", "e1000e", "igc", "tg3",
		"cdc_ether", "cdc_ncm", "rndis_host", "8021q", "bonding",
	}},
	{"rdma", []string{"mlx5_ib", "ib_uverbs", "ib_umad", "ib_ipoib", "rdma_ucm"}},
	{"management", []string{
		"ipmi_si", "ipmi_devintf", "ipmi_ssif", "i2c_i801", "efivarfs", "efi_pstore", "coretemp", "k10temp", "msr",
		"iTCO_wdt", "sp5100_tco", "ipmi_watchdog", "tpm_tis", "tpm_crb", "button", "evdev",
		"overlay", "loop", "dm_mod", "raid1", "squashfs", "erofs",
	}},
	{"virtual", []string{
		"virtio_pci", "virtio_net", "virtio_blk", "virtio_scsi", "virtio_rng", "virtio_console", "ata_piix", "e1000", "qemu_fw_cfg",
	}},
}

// softAliases resolves the soft dependencies that name an algorithm and not a module.
var softAliases = map[string][]string{
	"crc32c":           {"crc32c_generic", "crc32c_intel"},
	"crypto-crc32c":    {"crc32c_generic", "crc32c_intel"},
	"crct10dif":        {"crct10dif_generic"},
	"crypto-crct10dif": {"crct10dif_generic"},
}
