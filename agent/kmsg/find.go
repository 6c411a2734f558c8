package kmsg

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// Kinds of findings.
const (
	XID           = "xid"
	SXid          = "sxid"
	NVLink        = "nvlink"
	AER           = "aer"
	MCE           = "mce"
	EDAC          = "edac"
	PCIeBandwidth = "pcie-bandwidth"
	NVMe          = "nvme"
	MLX5          = "mlx5"
)

const address = `(?:[0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}(?:\.[0-7])?`

// rule finds one form of line. word must be in the line: most lines are then passed over without the expression.
type rule struct {
	word string
	re   *regexp.Regexp
	make func(m []string) fleet.KernelFinding
}

// rules are tried in their order. The forms of XID and SXid are those that gpud and NVSentinel parse; those of AER, MCE, EDAC, nvme and mlx5_core are
// as Linux 6.x prints them, as far as remembered: no recording of a broken machine has been compared yet.
var rules = []rule{
	{"Xid", regexp.MustCompile(`\bXid \((?:PCI:)?(` + address + `)\): (\d{1,4})\b(.*)`), func(m []string) fleet.KernelFinding {
		code := number(m[2])
		f := fleet.KernelFinding{Kind: XID, Code: code, Component: pciComponent(m[1]) + link(code, m[3]), Severity: xidSeverity(m[3])}
		if d, ok := DecodeNVLink5(m[3]); ok && code >= 144 && code <= 150 {
			f.Unit, f.SubCode = d.Unit, d.SubCode
		}
		return f
	}},
	// Two forms in which a GPU leaves the bus carry no XID: they mean 79.
	{"fallen off the bus", regexp.MustCompile(`^(?:.*?\b(` + address + `)\b.*|.*)fallen off the bus`), func(m []string) fleet.KernelFinding {
		f := fleet.KernelFinding{Kind: XID, Code: 79, Severity: "fatal"}
		if m[1] != "" {
			f.Component = pciComponent(m[1])
		}
		return f
	}},
	{"SXid", regexp.MustCompile(`\bSXid \(PCI:(` + address + `)\): (\d{1,6}), (?:(Fatal|Non-fatal|Corrected), )?(?:Link (\d+))?`), func(m []string) fleet.KernelFinding {
		f := fleet.KernelFinding{Kind: SXid, Code: number(m[2]), Component: pciComponent(m[1]), Severity: severity(m[3])}
		if m[4] != "" {
			f.Component += "/port/" + strconv.Itoa(number(m[4]))
		}
		return f
	}},
	{"knvlink", regexp.MustCompile(`(?i)NVRM:.*knvlink.*(?:fail|error|mask)`), only(NVLink)},
	{"nvlink", regexp.MustCompile(`(?i)nvidia-nvlink:.*(?:fail|error)`), only(NVLink)},
	// "pcieport 0000:16:01.1: AER: Uncorrectable (Non-Fatal) error message received from 0000:18:00.0" is followed by a line of the device itself.
	{"PCIe Bus Error", regexp.MustCompile(`(` + address + `): (?:AER: )?PCIe Bus Error: severity=(Corrected|Correctable|Uncorrected|Uncorrectable)?(?: ?\((Non-Fatal|Fatal)\))?`), func(m []string) fleet.KernelFinding {
		s := m[3]
		if s == "" {
			s = m[2]
		}
		return fleet.KernelFinding{Kind: AER, Component: pciComponent(m[1]), Severity: severity(s)}
	}},
	{"available PCIe bandwidth", regexp.MustCompile(`(` + address + `): .*available PCIe bandwidth, limited by`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: PCIeBandwidth, Component: pciComponent(m[1])}
	}},
	{"EDAC", regexp.MustCompile(`\bEDAC \w+: (\d+) (CE|UE) .*? on ([^\s(]+)`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: EDAC, Component: "dimm/" + m[3], Severity: map[string]string{"CE": "corrected", "UE": "fatal"}[m[2]]}
	}},
	{"Machine check events logged", regexp.MustCompile(`mce: \[Hardware Error\]: Machine check events logged`), only(MCE)},
	{"Machine Check", regexp.MustCompile(`\[Hardware Error\]: CPU (\d{1,6}): Machine Check(?: Exception)?: .*Bank (\d{1,4}): ([0-9a-f]+)`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: MCE, Component: "thread/" + m[1] + "/bank/" + strconv.Itoa(number(m[2])), Severity: mceSeverity(m[3])}
	}},
	{"Hardware Error", regexp.MustCompile(`\[Hardware Error\]: (?:event severity|Error \d+, type): (\w+)`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: MCE, Severity: severity(m[1])}
	}},
	{"nvme", regexp.MustCompile(`\bnvme (nvme\d+): (?:I/O (?:tag )?\d+.* timeout|.*\btimeout, (?:aborting|completion polled|disable|reset)|controller is down|Device not ready|Removing after probe failure|Disabling device after reset failure|Abort status|resetting controller due to)`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: NVMe, Component: "disk/" + m[1]}
	}},
	{"mlx5", regexp.MustCompile(`\bmlx5_(?:core|pcie_event|health)\S* (` + address + `)\S*:? .*(?:High Temperature|[Ii]nsufficient power|Port module event\[error\]|health compromised|device's health|[Ff]atal|ACCESS_REG|synd(?:rome)? 0x|assert_var|firmware version .* not supported|cable error|Bus or Module)`), func(m []string) fleet.KernelFinding {
		return fleet.KernelFinding{Kind: MLX5, Component: pciComponent(m[1])}
	}},
}

// Find decodes one line; ok is false for a line that says nothing of hardware trouble. Count, times and Line are the caller's.
func Find(text string) (f fleet.KernelFinding, ok bool) {
	if len(text) > 4096 {
		text = text[:4096]
	}
	for _, r := range rules {
		if !strings.Contains(text, r.word) {
			continue
		}
		if m := r.re.FindStringSubmatch(text); m != nil {
			return r.make(m), true
		}
	}
	return f, false
}

func only(kind string) func([]string) fleet.KernelFinding {
	return func([]string) fleet.KernelFinding { return fleet.KernelFinding{Kind: kind} }
}

// number reads digits that an expression has bounded.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// severity translates the words of several drivers.
func severity(s string) string {
	switch strings.ToLower(s) {
	case "fatal", "panic":
		return "fatal"
	case "non-fatal", "nonfatal", "uncorrected", "uncorrectable", "recoverable":
		return "nonfatal"
	case "corrected", "correctable", "info":
		return "corrected"
	}
	return ""
}

// mceSeverity reads a bank's status: bit 61 is an uncorrected error, bit 57 one that corrupted the processor's context (Intel SDM 3B, 17.3.2.2).
func mceSeverity(status string) string {
	n, err := strconv.ParseUint(status, 16, 64)
	switch {
	case err != nil:
		return ""
	case n&(1<<57) != 0:
		return "fatal"
	case n&(1<<61) != 0:
		return "nonfatal"
	}
	return "corrected"
}
