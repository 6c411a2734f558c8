package inspect

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// acsServices are the bits of the ACS control register, from bit 0 on (PCI Express Base 6.0, section 7.7.11.3).
var acsServices = []string{"source-validation", "translation-blocking", "request-redirect", "completion-redirect", "upstream-forwarding", "egress-control", "direct-translated"}

// Extended capabilities begin behind the 256 bytes of the old configuration space (PCI Express Base 6.0, section 7.6.3).
const (
	extendedSpace = 0x100
	capabilityACS = 0x000d
)

// readBoard reads the subsystem, which names the board that a chip is on. Bridges that keep none say 0.
func (r *reading) readBoard(dir, name string, p *fleet.PCI) {
	vendor := strings.TrimPrefix(r.fs.Try(dir, name, "subsystem_vendor"), "0x")
	device := strings.TrimPrefix(r.fs.Try(dir, name, "subsystem_device"), "0x")
	if len(vendor) == 4 && len(device) == 4 && vendor != "0000" {
		p.Subsystem = vendor + ":" + device
	}
}

// readACS reads what a bridge enforces. Only its privileged reader sees the configuration space behind the header; one that sees less says so.
func (r *reading) readACS(dir, name string, p *fleet.PCI) {
	if !strings.HasPrefix(p.Class, "0604") {
		return
	}
	b, err := r.fs.Bytes(dir, name, "config")
	if errors.Is(err, fs.ErrNotExist) && !r.fs.Live() {
		r.missingf("pci bridges acs", "the recording has no configuration spaces")
		return
	}
	if err != nil {
		r.missing("pci/"+name+" acs", err)
		return
	}
	if len(b) <= 64 && r.fs.Live() {
		r.missingf("pci bridges acs", "their configuration space cannot be read beyond the header; this needs root")
		return
	}
	p.ACS = decodeACS(b)
}

// decodeACS returns the services that a configuration space says are enforced; nil where the function has no such capability, empty where all are off.
func decodeACS(b []byte) []string {
	at, ok := extendedCapability(b, capabilityACS)
	if !ok || at+8 > len(b) {
		return nil
	}
	control := binary.LittleEndian.Uint16(b[at+6:])
	out := []string{}
	for bit, name := range acsServices {
		if control&(1<<bit) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// extendedCapability finds a capability in the list; a list that leads in a circle ends.
func extendedCapability(b []byte, id uint16) (at int, ok bool) {
	at = extendedSpace
	for range 64 {
		if at < extendedSpace || at+4 > len(b) {
			return 0, false
		}
		header := binary.LittleEndian.Uint32(b[at:])
		if header == 0 || header == 0xffffffff {
			return 0, false
		}
		if uint16(header) == id {
			return at, true
		}
		at = int(header >> 20 &^ 3)
	}
	return 0, false
}

// readAER reads what a function's error reporting counted since boot (Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats).
func (r *reading) readAER(dir, name string, p *fleet.PCI) {
	for severity, file := range map[string]string{"correctable": "aer_dev_correctable", "nonfatal": "aer_dev_nonfatal", "fatal": "aer_dev_fatal"} {
		text, err := r.fs.Text(dir, name, file)
		if err != nil {
			continue // no such capability, or the firmware kept it to itself
		}
		for counter, n := range parseAER(text) {
			if p.AER == nil {
				p.AER = map[string]int64{}
			}
			p.AER[severity+"/"+counter] = n
		}
	}
}

// parseAER returns the counters that are not zero, without the total that the kernel adds.
func parseAER(text string) map[string]int64 {
	out := map[string]int64{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 2 || strings.HasPrefix(f[0], "TOTAL_") {
			continue
		}
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n > 0 {
			out[f[0]] = n
		}
	}
	return out
}
