package burn

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// meter reads one attribute of the kernel as a sample.
type meter struct {
	fleet.Sample
	file  string
	scale float64
	// counts: it is a counter. Its samples are what it has counted since the stage began, and there are none before it has counted anything: machines have hundreds of
	// counters that stand still.
	counts bool
	first  *int64
}

// meters reads the kernel's attributes of a machine once a second; it is for one goroutine.
type meters struct {
	files sysfs.Tree
	all   []*meter
}

// errorCounters of an InfiniBand port are those that tell of wires, cables and switches.
var errorCounters = []string{"symbol_error", "link_error_recovery", "link_downed", "port_rcv_errors", "port_rcv_remote_physical_errors", "local_link_integrity_errors",
	"excessive_buffer_overrun_errors", "port_xmit_discards"}

// newMeters looks for what there is to be read. Functions that the fabric's manager owns are left alone: reading their counters makes the driver log errors.
func newMeters(files sysfs.Tree, inv *fleet.Inventory) *meters {
	m := &meters{files: files}
	m.addHwmon(inv)
	m.addEDAC()
	for _, h := range inv.HCAs {
		if h.Role == fleet.HCAFabric {
			continue
		}
		for _, p := range h.Ports {
			for _, name := range errorCounters {
				m.add(meter{Sample: fleet.Sample{Name: "ib-" + strings.ReplaceAll(name, "_", "-"), Component: fmt.Sprintf("hca/%s/port/%d", h.Name, p.Port), Unit: "events"},
					file: fmt.Sprintf("sys/class/infiniband/%s/ports/%d/counters/%s", h.Name, p.Port, name), scale: 1, counts: true})
			}
		}
	}
	for _, c := range inv.CPUs {
		m.add(meter{Sample: fleet.Sample{Name: "cpu-throttled", Component: fmt.Sprintf("cpu/%d", c.Socket), Unit: "events"},
			file: fmt.Sprintf("sys/devices/system/cpu/cpu%d/thermal_throttle/package_throttle_count", m.firstThread(inv, c.Socket)), scale: 1, counts: true})
	}
	return m
}

// add takes what can be read now; what cannot is not there, or nobody may read it.
func (m *meters) add(x meter) {
	n, err := m.files.Number(x.file)
	if err != nil {
		return
	}
	if x.counts {
		x.first = &n
	}
	m.all = append(m.all, &x)
}

// firstThread is a thread of a socket, whose counters of the whole package are as good as another's.
func (m *meters) firstThread(inv *fleet.Inventory, socket int) int {
	for _, n := range inv.NUMANodes {
		first, err := strconv.Atoi(strings.FieldsFunc(n.CPUs+",-1", func(r rune) bool { return r == ',' || r == '-' })[0])
		if err == nil && m.files.NumberOr(-1, fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology/physical_package_id", first)) == int64(socket) {
			return first
		}
	}
	return -1
}

var packageLabel = regexp.MustCompile(`^Package id (\d{1,4})$`)

// addHwmon finds the thermometers of processors, drives and adapters, one for each: the first is of the whole (docs.kernel.org/hwmon).
func (m *meters) addHwmon(inv *fleet.Inventory) {
	parts := map[string]string{}
	for _, d := range inv.Disks {
		parts[d.PCIAddress] = "disk/" + d.Name
	}
	for _, h := range inv.HCAs {
		parts[h.PCIAddress] = "hca/" + h.Name
	}
	names, err := m.files.List("sys/class/hwmon")
	if err != nil {
		return // a kernel without any
	}
	for _, name := range names {
		dir := path.Join("sys/class/hwmon", name)
		component := ""
		if label := packageLabel.FindStringSubmatch(m.files.Try(dir, "temp1_label")); label != nil {
			component = "cpu/" + label[1]
		} else if address := sysfs.PCIAddress(m.files.Device(dir)); address != "" {
			component = parts[address]
		}
		if component == "" {
			continue
		}
		m.add(meter{Sample: fleet.Sample{Name: "temperature", Component: component, Unit: "C"}, file: path.Join(dir, "temp1_input"), scale: 1e-3})
	}
}

// addEDAC finds the kernel's counts of memory errors by the labels that drivers give the modules.
func (m *meters) addEDAC() {
	const dir = "sys/devices/system/edac/mc"
	controllers, err := m.files.List(dir)
	if err != nil {
		return
	}
	for _, mc := range controllers {
		names, err := m.files.List(dir, mc)
		if err != nil {
			continue
		}
		for _, name := range names {
			if !strings.HasPrefix(name, "dimm") && !strings.HasPrefix(name, "rank") {
				continue
			}
			component := "dimm/" + mc + "/" + name
			if label := m.files.Try(dir, mc, name, "dimm_label"); label != "" {
				component = "dimm/" + label
			}
			for kind, file := range map[string]string{"memory-corrected": "dimm_ce_count", "memory-uncorrected": "dimm_ue_count"} {
				m.add(meter{Sample: fleet.Sample{Name: kind, Component: component, Unit: "errors"}, file: path.Join(dir, mc, name, file), scale: 1, counts: true})
			}
		}
	}
}

// read returns what the meters show now. What cannot be read any more is left out: a drive may be gone.
func (m *meters) read(context.Context) ([]fleet.Sample, error) {
	var out []fleet.Sample
	for _, x := range m.all {
		n, err := m.files.Number(x.file)
		if err != nil {
			continue
		}
		s := x.Sample
		if x.counts {
			if n -= *x.first; n <= 0 {
				continue
			}
		}
		s.Value = float64(n) * x.scale
		out = append(out, s)
	}
	return out, nil
}
