package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/metalctl/metalctl/fleet"
)

// Want is what SetBootEntry must see to.
type Want struct {
	Entry Entry
	// Present are the unique GUIDs of all partitions of this machine. Entries for partitions that are not among them are removed; empty: only ours are.
	Present [][16]byte
}

// Outcome says what SetBootEntry did.
type Outcome struct {
	// Name is the variable that was written, such as "Boot0003".
	Name string `json:"name"`
	// Removed are the entries that were taken away, as "Boot0001 label".
	Removed []string `json:"removed,omitempty"`
	// Order is the boot order now.
	Order []string `json:"order"`
}

// boot is one Boot#### variable; one that cannot be read is left alone.
type boot struct {
	number uint16
	data   []byte
	option LoadOption
	bad    error
}

func (b boot) name() string   { return fmt.Sprintf("Boot%04X", b.number) }
func (b boot) String() string { return b.name() + " " + b.option.Label }

// SetBootEntry makes the machine start w.Entry: old entries of ours and those of vanished partitions are removed, the entry is written, put first in the
// boot order, chosen for the next boot, and all of it read back. Other entries keep their place. Where the firmware's memory is full the
// error is MC-EFI-FULL, and what others made is still there.
func SetBootEntry(vars Vars, w Want) (Outcome, error) {
	var out Outcome
	want, err := w.Entry.Marshal()
	if err != nil {
		return out, fmt.Errorf("set boot entry: %w", err)
	}
	all, order, err := readBoots(vars)
	if err != nil {
		return out, fmt.Errorf("set boot entry: %w", err)
	}
	var keep []boot
	for _, b := range all {
		if b.removable(w) {
			if err := vars.Write(b.name(), nil); err != nil {
				return out, fmt.Errorf("set boot entry: %w", err)
			}
			out.Removed = append(out.Removed, b.String())
			order = slices.DeleteFunc(order, func(n uint16) bool { return n == b.number })
			continue
		}
		keep = append(keep, b)
	}
	number, err := freeNumber(keep, order)
	if err != nil {
		return out, err
	}
	order = append([]uint16{number}, slices.DeleteFunc(order, func(n uint16) bool { return n == number })...)
	out.Name = boot{number: number}.name()
	for _, v := range []struct {
		name string
		data []byte
	}{{out.Name, want}, {"BootOrder", numbers(order...)}, {"BootNext", numbers(number)}} {
		if err := writeChecked(vars, v.name, v.data); err != nil {
			return out, err
		}
	}
	for _, n := range order {
		out.Order = append(out.Order, boot{number: n}.name())
	}
	return out, nil
}

// RemoveOurs takes away every entry that this program made, for a node that is cleaned, and reads back which ones there are then: left are those of others.
func RemoveOurs(vars Vars) (removed, left []string, err error) {
	if removed, err = removeOurs(vars); err != nil {
		return removed, nil, err
	}
	all, _, err := readBoots(vars)
	if err != nil {
		return removed, nil, fmt.Errorf("remove boot entries: read back: %w", err)
	}
	for _, b := range all {
		if b.bad == nil && b.option.Ours() {
			return removed, nil, fleet.Errorf(fleet.Broken, "MC-EFI-READBACK", "the firmware did not let go of %s", b).WithHint("reset its variables by the BMC, or update the firmware")
		}
		left = append(left, b.String())
	}
	return removed, left, nil
}

func removeOurs(vars Vars) (removed []string, err error) {
	all, order, err := readBoots(vars)
	if err != nil {
		return nil, fmt.Errorf("remove boot entries: %w", err)
	}
	left := slices.Clone(order)
	for _, b := range all {
		if b.bad != nil || !b.option.Ours() {
			continue
		}
		if err := vars.Write(b.name(), nil); err != nil {
			return removed, fmt.Errorf("remove boot entries: %w", err)
		}
		removed = append(removed, b.String())
		left = slices.DeleteFunc(left, func(n uint16) bool { return n == b.number })
	}
	if len(left) == len(order) {
		return removed, nil
	}
	return removed, writeChecked(vars, "BootOrder", numbers(left...))
}

// removable: ours, or a leftover of a partition that is no more.
func (b boot) removable(w Want) bool {
	if b.bad != nil {
		return false
	}
	return b.option.Ours() || len(w.Present) > 0 && b.option.HD != nil && !slices.Contains(w.Present, b.option.HD.GUID)
}

func writeChecked(vars Vars, name string, data []byte) error {
	err := vars.Write(name, data)
	if errors.Is(err, unix.ENOSPC) {
		return fleet.Errorf(fleet.Broken, "MC-EFI-FULL", "the firmware's variable memory is full: %s could not be written: %w", name, err).
			WithHint("remove entries in the firmware's set-up, or reset its variables by the BMC; ours are already gone")
	}
	if err != nil {
		return fmt.Errorf("set boot entry: %w", err)
	}
	got, err := vars.Read(name)
	if err != nil {
		return fmt.Errorf("set boot entry: read back: %w", err)
	}
	if !bytes.Equal(got, data) {
		return fleet.Errorf(fleet.Broken, "MC-EFI-READBACK", "the firmware did not keep %s: wrote % x, reads % x", name, data, got).
			WithHint("the one-time boot target of the BMC still decides the next boot; update the firmware")
	}
	return nil
}

func readBoots(vars Vars) ([]boot, []uint16, error) {
	names, err := vars.List()
	if err != nil {
		return nil, nil, err
	}
	var all []boot
	for _, name := range names {
		hex, ok := strings.CutPrefix(name, "Boot")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !ok || len(hex) != 4 || err != nil {
			continue
		}
		b := boot{number: uint16(n)}
		if b.data, err = vars.Read(name); err != nil {
			return nil, nil, err
		}
		b.option, b.bad = ParseLoadOption(b.data)
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b boot) int { return int(a.number) - int(b.number) })
	raw, err := vars.Read("BootOrder")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var order []uint16
	for ; len(raw) >= 2; raw = raw[2:] {
		order = append(order, binary.LittleEndian.Uint16(raw))
	}
	return all, order, nil
}

// freeNumber takes the lowest number that neither a variable nor the order uses.
func freeNumber(all []boot, order []uint16) (uint16, error) {
	used := map[uint16]bool{}
	for _, b := range all {
		used[b.number] = true
	}
	for _, n := range order {
		used[n] = true
	}
	for n := range uint16(0xffff) {
		if !used[n] {
			return n, nil
		}
	}
	return 0, fleet.Errorf(fleet.Broken, "MC-EFI-FULL", "all 65,535 boot entries are taken")
}

func numbers(list ...uint16) []byte {
	b := []byte{}
	for _, n := range list {
		b = binary.LittleEndian.AppendUint16(b, n)
	}
	return b
}
