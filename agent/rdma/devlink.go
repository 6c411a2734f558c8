package rdma

import (
	"bufio"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Folders of a recording for what the kernel tells by netlink only: lines of a name and a value.
const (
	devlinkDir  = "devlink" // by PCI address: fw.version, fw.psid, board.id, serial_number, eswitch.mode
	resourceDir = "rdma"    // by device: qp, cq, mr, pd, ctx
)

// fromDevlink fills in what devlink knows better than sysfs, or alone.
func (r *reading) fromDevlink(h *fleet.HCA) {
	info := r.live.info[h.PCIAddress]
	if !r.Live() {
		info = pairs(r.Try(devlinkDir, h.PCIAddress))
	}
	set := func(to *string, keys ...string) {
		for _, k := range keys {
			if v := info[k]; v != "" {
				*to = v
				return
			}
		}
	}
	set(&h.PSID, "fw.psid")
	set(&h.Firmware, "fw.version")
	set(&h.Serial, "board.serial_number", "serial_number", "serialNumber")
	set(&h.Part, "board.id")
	// A BlueField whose own cores run the switch (DPU mode) refuses the host's question for it; in NIC mode it is the host's.
	if isBlueField(h.Type) && info != nil {
		if h.Mode = "dpu"; info["eswitch.mode"] != "" {
			h.Mode = "nic"
		}
	}
}

// isBlueField reports whether a device type is BlueField's: MT41682 (1), MT41686 (2), MT41692 (3).
func isBlueField(kind string) bool {
	return kind == "MT41682" || kind == "MT41686" || kind == "MT41692"
}

// resources counts what somebody left open.
func (r *reading) resources(name string) map[string]int64 {
	if r.Live() {
		return r.live.resources[name]
	}
	text := r.Try(resourceDir, name)
	if text == "" {
		return nil
	}
	out := map[string]int64{}
	for k, v := range pairs(text) {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 {
			r.missingf("hca/"+name+" resources", "%q is no count", v)
			continue
		}
		out[k] = n
	}
	return out
}

// pairs reads lines of a name and a value; nil for no line.
func pairs(text string) map[string]string {
	var out map[string]string
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		k, v, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[k] = strings.TrimSpace(v)
	}
	return out
}
