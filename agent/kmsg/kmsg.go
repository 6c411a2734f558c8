// Package kmsg finds in the kernel's log what it says of hardware: XIDs, PCIe and memory errors, links and drives that give up.
package kmsg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// maxLine is how much of a line a finding keeps.
const maxLine = 300

// Record is one record of the kernel's log.
type Record struct {
	Level    int // 0 emergency to 7 debug
	Sequence uint64
	// Since is the time since boot.
	Since time.Duration
	Text  string
}

// Parse reads a record as /dev/kmsg gives it: "6,339,5140900,-;text", with lines of properties behind that begin with a blank (dev-kmsg in
// Documentation/ABI/testing). ok is false for what is no record.
func Parse(line string) (r Record, ok bool) {
	head, text, found := strings.Cut(line, ";")
	fields := strings.Split(head, ",")
	if !found || len(fields) < 3 {
		return r, false
	}
	prefix, err1 := strconv.ParseUint(fields[0], 10, 31)
	number, err2 := strconv.ParseUint(fields[1], 10, 64)
	micros, err3 := strconv.ParseUint(fields[2], 10, 63)
	if err1 != nil || err2 != nil || err3 != nil || micros > 1<<50 {
		return r, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return Record{Level: int(prefix & 7), Sequence: number, Since: time.Duration(micros) * time.Microsecond, Text: unescape(text)}, true
}

// unescape undoes the \xNN that the kernel writes for bytes which are not printable.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return strings.ToValidUTF8(s, "?")
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if i+4 <= len(s) && s[i] == '\\' && s[i+1] == 'x' {
			if n, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return strings.ToValidUTF8(b.String(), "?")
}

// Findings gathers findings, and counts those that are alike. Its zero value is ready; it is for one goroutine.
type Findings struct {
	// Boot is when the machine started; zero leaves the findings without times.
	Boot time.Time
	list []fleet.KernelFinding
	at   map[key]int
}

type key struct {
	kind, component, severity, unit string
	code, subCode                   int
}

// maxFindings bounds what a log full of nonsense can make; further kinds are dropped, as a machine with so many is broken anyway.
const maxFindings = 500

// Add looks at one record and reports whether it was a finding.
func (f *Findings) Add(r Record) bool {
	found, ok := Find(r.Text)
	if !ok {
		return false
	}
	found.Line = cut(r.Text)
	when := time.Time{}
	if !f.Boot.IsZero() {
		when = f.Boot.Add(r.Since).UTC()
	}
	found.First, found.Last, found.Count = when, when, 1
	k := key{found.Kind, found.Component, found.Severity, found.Unit, found.Code, found.SubCode}
	if i, seen := f.at[k]; seen {
		f.list[i].Count++
		f.list[i].Last, f.list[i].Line = when, found.Line
		return true
	}
	if len(f.list) == maxFindings {
		return true
	}
	if f.at == nil {
		f.at = map[key]int{}
	}
	f.at[k] = len(f.list)
	f.list = append(f.list, found)
	return true
}

// List returns the findings in the order in which each was first seen.
func (f *Findings) List() []fleet.KernelFinding { return slices.Clone(f.list) }

// cut shortens a line at a whole character.
func cut(s string) string {
	if len(s) <= maxLine {
		return s
	}
	return strings.ToValidUTF8(s[:maxLine], "")
}

// pciComponent names a part by its PCI address as the kernel writes it. NVIDIA leaves the function away, and older ones the domain.
func pciComponent(address string) string {
	address = strings.ToLower(strings.TrimSpace(address))
	if strings.Count(address, ":") == 1 {
		address = "0000:" + address
	}
	if !strings.Contains(address, ".") {
		address += ".0"
	}
	domain, rest, _ := strings.Cut(address, ":")
	if n, err := strconv.ParseUint(domain, 16, 32); err == nil {
		domain = fmt.Sprintf("%04x", n)
	}
	return "pci/" + domain + ":" + rest
}
