package disk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// drive is an NVMe drive that works on a file. What it advertises and what it does are set apart.
type drive struct {
	dev                         Device
	serial                      string
	oacs, fna, sanicap          uint32
	unallocated                 uint64
	active, allocated           []uint32
	formatStatus, sanitizeState int  // formatStatus: answer; sanitizeState: how a sanitize ends
	lies                        bool // answers success and does nothing
	running                     int  // polls until a sanitize is done
	stale                       bool // the log never changes
	leaveText                   bool // a sanitize that leaves readable data of another kind

	state    int
	left     int
	command  uint32
	commands []uint32 // opcode<<16 | action or SES
}

func (d *drive) NSID() uint32 { return 1 }

func (d *drive) Admin(_ context.Context, c Command) error {
	le := binary.LittleEndian
	switch c.Opcode {
	case opIdentify:
		switch c.CDW10 {
		case 0:
			c.Data[26] = 0x11 // LBA format 1, metadata inline
		case 1:
			copy(c.Data[4:], d.serial+strings.Repeat(" ", 20-len(d.serial)))
			copy(c.Data[24:], "FAKE NVME"+strings.Repeat(" ", 31))
			copy(c.Data[64:], "1.0     ")
			le.PutUint16(c.Data[256:], uint16(d.oacs))
			c.Data[524] = byte(d.fna)
			le.PutUint64(c.Data[296:], d.unallocated)
			le.PutUint32(c.Data[328:], d.sanicap)
		case 2, 0x10:
			ids := d.active
			if c.CDW10 == 0x10 {
				ids = d.allocated
			}
			for i, id := range ids {
				le.PutUint32(c.Data[4*i:], id)
			}
		}
		return nil
	case opLogPage:
		if d.sanicap == 0 {
			return Status(2)
		}
		if d.state == sanRunning {
			if d.left--; d.left < 0 {
				d.state = d.sanitizeState
			}
		}
		le.PutUint16(c.Data, 0x8000)
		for i := range 3 {
			le.PutUint32(c.Data[8+4*i:], 0xffffffff)
		}
		if !d.stale {
			le.PutUint16(c.Data[2:], uint16(d.state))
			le.PutUint32(c.Data[4:], d.command)
		} else {
			le.PutUint16(c.Data[2:], sanDone)
			le.PutUint32(c.Data[4:], 4)
		}
		return nil
	case opSanitize:
		d.commands = append(d.commands, opSanitize<<16|c.CDW10)
		switch {
		case d.state == sanRunning:
			return Status(0x1d)
		case c.CDW10 == sanitizeExit && d.state == sanFailed && d.command&unrestricted != 0:
			d.state = sanNever
			return nil
		case c.CDW10 == sanitizeExit:
			return Status(2)
		}
		d.state, d.left, d.command = sanRunning, d.running, c.CDW10
		return d.wipe(c.CDW10&actionMask == 4)
	case opFormat:
		d.commands = append(d.commands, opFormat<<16|c.CDW10)
		if d.state == sanRunning || d.state == sanFailed {
			return Status(0x1c)
		}
		if d.formatStatus != 0 {
			return Status(d.formatStatus)
		}
		return d.wipe(false)
	}
	return Status(1)
}

func (d *drive) wipe(random bool) error {
	if d.lies {
		return nil
	}
	b := make([]byte, d.dev.SizeBytes)
	switch {
	case d.leaveText:
		copy(b, bytes.Repeat([]byte("another tenant's text "), len(b)/22))
	case random:
		_, _ = mrand.NewChaCha8([32]byte{7}).Read(b)
	}
	return os.WriteFile(d.dev.Path, b, 0o600)
}

func nvmeDisk(t *testing.T, d *drive) Device {
	dev := dirtyDisk(t, 32<<20)
	dev.Transport, dev.Place, d.dev = "nvme", "slot 12", dev
	if d.serial == "" {
		d.serial = dev.Serial
	}
	if d.active == nil {
		d.active, d.allocated = []uint32{1}, []uint32{1}
	}
	return dev
}

// fastClock makes waiting advance the clock instead.
func fastClock(o EraseOptions) EraseOptions {
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0).UTC()
	o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); now = now.Add(time.Millisecond); return now }
	o.Wait = func(ctx context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
		return ctx.Err()
	}
	return o
}

func TestTheBestMethodThatTheDriveAdvertisesIsUsed(t *testing.T) {
	const format1, format2 = opFormat<<16 | 1 | 1<<4 | 1<<9, opFormat<<16 | 1 | 1<<4 | 2<<9
	const crypto, block, exit = opSanitize<<16 | 4, opSanitize<<16 | 2, opSanitize<<16 | sanitizeExit
	const weakly = unrestricted // where a weaker method may follow
	for _, c := range []struct {
		name     string
		drive    drive
		policy   ErasePolicy
		method   string
		claim    Claim
		commands []uint32
		code     string
	}{
		{"sanitize by crypto erase", drive{sanicap: 3, running: 3, sanitizeState: sanDone}, ErasePolicy{Level: Purge}, "nvme sanitize: crypto erase", Purge, []uint32{crypto}, ""},
		{"sanitize by block erase", drive{sanicap: 2, sanitizeState: sanDoneDe}, ErasePolicy{Level: Purge}, "nvme sanitize: block erase", Purge, []uint32{block}, ""},
		{"a failed sanitize falls back to the other one and then fails", drive{sanicap: 3, sanitizeState: sanFailed}, ErasePolicy{Level: Purge}, "", "", []uint32{crypto, block}, "MC-ERASE-FAILED"},
		{"a failed sanitize falls back to Format", drive{sanicap: 1, oacs: 2, sanitizeState: sanFailed}, ErasePolicy{}, "nvme format: user data erase", Clear, []uint32{crypto | weakly, exit, format1}, ""},
		{"Format without crypto erase is not asked for one", drive{oacs: 2}, ErasePolicy{}, "nvme format: user data erase", Clear, []uint32{format1}, ""},
		{"crypto Format is a clear by default", drive{oacs: 2, fna: 4}, ErasePolicy{}, "nvme format: crypto erase", Clear, []uint32{format2}, ""},
		{"crypto Format is a purge where the site says so", drive{oacs: 2, fna: 4}, ErasePolicy{Level: Purge, AcceptFormat: true}, "nvme format: crypto erase", Purge, []uint32{format2}, ""},
		{"so is a Format with user data erase", drive{oacs: 2}, ErasePolicy{Level: Purge, AcceptFormat: true}, "nvme format: user data erase", Purge, []uint32{format1}, ""},
		{"a sanitize is better than a Format that counts", drive{sanicap: 2, oacs: 2, fna: 4, sanitizeState: sanDone}, ErasePolicy{Level: Purge, AcceptFormat: true}, "nvme sanitize: block erase", Purge, []uint32{block}, ""},
		{"a Format of one namespace beside room that has none is no purge", drive{oacs: 2 | 8, fna: 4, unallocated: 1 << 30}, ErasePolicy{Level: Purge, AcceptFormat: true}, "", "", nil, "MC-ERASE-LEVEL"},
		{"nor where a namespace may have been deleted and made again", drive{oacs: 2 | 8, fna: 4}, ErasePolicy{Level: Purge, AcceptFormat: true}, "", "", nil, "MC-ERASE-LEVEL"},
		{"a Format that reaches all of such a drive is one", drive{oacs: 2 | 8, fna: 4 | 2}, ErasePolicy{Level: Purge, AcceptFormat: true}, "nvme format: crypto erase", Purge, []uint32{format2}, ""},
		{"a Format that reaches that room is one", drive{oacs: 2 | 8, fna: 4 | 2, unallocated: 1 << 30}, ErasePolicy{Level: Purge, AcceptFormat: true}, "nvme format: crypto erase", Purge, []uint32{format2}, ""},
		{"a drive that lies about a Format that counts", drive{oacs: 2, lies: true}, ErasePolicy{Level: Purge, AcceptFormat: true}, "", "", []uint32{format1}, "MC-ERASE-VERIFY"},
		{"a locked drive is overwritten", drive{oacs: 2, formatStatus: 0x15}, ErasePolicy{}, "zeros", Clear, []uint32{format1}, ""},
		{"a Format for all namespaces is not used beside others", drive{oacs: 2, fna: 3, active: []uint32{1, 2}}, ErasePolicy{}, "zeros", Clear, nil, ""},
		{"no purge to be had", drive{oacs: 2}, ErasePolicy{Level: Purge}, "", "", nil, "MC-ERASE-LEVEL"},
		{"a detached namespace that nothing reaches", drive{oacs: 2 | 8, active: []uint32{1}, allocated: []uint32{1, 2}}, ErasePolicy{}, "", "", nil, "MC-ERASE-DETACHED"},
		{"another drive answers", drive{oacs: 2, serial: "OTHER"}, ErasePolicy{}, "", "", nil, "MC-ERASE-IDENTITY"},
		{"a drive that lies about Format", drive{oacs: 2, lies: true}, ErasePolicy{}, "", "", []uint32{format1}, "MC-ERASE-VERIFY"},
		{"a drive that lies about sanitize", drive{sanicap: 1, lies: true, sanitizeState: sanDone}, ErasePolicy{}, "", "", []uint32{crypto | weakly}, "MC-ERASE-VERIFY"},
		{"a log that never changes proves nothing", drive{sanicap: 1, stale: true}, ErasePolicy{Level: Purge}, "", "", []uint32{crypto}, "MC-ERASE-FAILED"},
		{"readable data after a crypto erase", drive{sanicap: 1, leaveText: true, sanitizeState: sanDone}, ErasePolicy{}, "", "", []uint32{crypto | weakly}, "MC-ERASE-VERIFY"},
		{"a sanitize that never ends", drive{sanicap: 1, oacs: 2, running: 1 << 30}, ErasePolicy{Level: Purge}, "", "", []uint32{crypto}, "MC-ERASE-SANITIZE"},
		{"a sanitize of before is waited for first", drive{sanicap: 1, state: sanRunning, left: 5, running: 1, command: 4, sanitizeState: sanDone}, ErasePolicy{Level: Purge}, "nvme sanitize: crypto erase", Purge, []uint32{crypto}, ""},
		{"a sanitize of before that never ends", drive{sanicap: 1, state: sanRunning, left: 1 << 30, command: 2}, ErasePolicy{Level: Purge}, "", "", nil, "MC-ERASE-SANITIZE"},
		{"one of before that failed, and may be left", drive{sanicap: 1, state: sanFailed, command: 2 | unrestricted, sanitizeState: sanDone}, ErasePolicy{Level: Purge}, "nvme sanitize: crypto erase", Purge, []uint32{exit, crypto}, ""},
		{"one of before that failed, and must be done again", drive{sanicap: 1, state: sanFailed, command: 2, running: 1, sanitizeState: sanDone}, ErasePolicy{Level: Purge}, "nvme sanitize: crypto erase", Purge, []uint32{exit, crypto, crypto}, ""},
		{"one of before that fails again", drive{sanicap: 1, state: sanFailed, command: 2, sanitizeState: sanFailed}, ErasePolicy{Level: Purge}, "", "", []uint32{exit, crypto}, "MC-ERASE-FAILED"},
		{"one of before fails while it is waited for", drive{sanicap: 1, state: sanRunning, left: 2, command: 4 | unrestricted, sanitizeState: sanFailed}, ErasePolicy{Level: Purge}, "", "", []uint32{exit, crypto}, "MC-ERASE-FAILED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &c.drive
			dev := nvmeDisk(t, d)
			before := digestOf(readAll(t, dev))
			ev, err := Erase(t.Context(), dev, fastClock(EraseOptions{Policy: c.policy, Admin: func(Device) (Admin, func() error, error) {
				return d, func() error { return nil }, nil
			}}))
			if fleet.CodeOf(err) != c.code || (err == nil) != (c.code == "") {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if c.code == "MC-ERASE-SANITIZE" && !strings.Contains(err.Error(), "the drive with the serial "+dev.Serial+" in slot 12 is at 50 %") {
				t.Errorf("the drive is not named: %v", err)
			}
			if before := strings.Contains(c.name, "of before"); before && err == nil && !strings.Contains(ev.TakenOver, "of before") {
				t.Errorf("what was taken over is not told: %q", ev.TakenOver)
			}
			if !slices.Equal(d.commands, c.commands) {
				t.Errorf("commands %x, want %x", d.commands, c.commands)
			}
			if c.code != "" {
				if touched := digestOf(readAll(t, dev)) != before; touched && fleet.KindOf(err) == fleet.Refused {
					t.Error("refused, but the disk changed")
				}
				return
			}
			if ev.Method != c.method || ev.Claim != c.claim || ev.CanariesWritten != 1024 || ev.CanariesFound != 0 || ev.SampledBytes < 4<<20 {
				t.Errorf("evidence %+v, want %s as %s", ev, c.method, c.claim)
			}
			if strings.HasPrefix(c.method, "nvme sanitize") && (ev.LogBefore == ev.LogAfter && ev.TakenOver == "" || ev.LogAfter == "" || ev.CDW10 == "") {
				t.Errorf("the log is not part of the evidence: %+v", ev)
			}
			disk := readAll(t, dev)
			if !allZero(disk[:headBytes]) || !allZero(disk[len(disk)-headBytes:]) || bytes.Contains(disk, []byte("old tenant data")) {
				t.Error("old data is left, or the ends are not zero")
			}
		})
	}
}

func TestDisksWithoutACommandAreOverwritten(t *testing.T) {
	for _, c := range []struct {
		name string
		dev  func(*testing.T) Device
	}{
		{"a plain file", func(t *testing.T) Device { return dirtyDisk(t, 24<<20) }},
		{"a loop device", func(t *testing.T) Device { return loopDisk(t, 24<<20, 512) }},
		{"a loop device with 4 KiB sectors", func(t *testing.T) Device { return loopDisk(t, 24<<20, 4096) }},
		{"a very small disk", func(t *testing.T) Device { return dirtyDisk(t, 64<<10) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev := c.dev(t)
			if _, err := WriteImage(t.Context(), dev, fixed("x"), Options{}); err != nil {
				t.Fatal(err)
			}
			var stages []string
			ev, err := Erase(t.Context(), dev, EraseOptions{Progress: func(_ Device, p Progress) { stages = append(stages, p.Stage) }})
			if err != nil {
				t.Fatal(err)
			}
			if !allZero(readAll(t, dev)) {
				t.Error("not all of the disk is zero")
			}
			if ev.Method != "zeros" || ev.Claim != Clear || !ev.SampledZero || ev.CanariesWritten == 0 {
				t.Errorf("evidence %+v", ev)
			}
			if !slices.Contains(stages, "erase") || !slices.Contains(stages, "sample") {
				t.Errorf("stages %v", stages)
			}
			if _, err := Erase(t.Context(), dev, EraseOptions{Policy: ErasePolicy{Level: Purge}}); fleet.CodeOf(err) != "MC-ERASE-LEVEL" {
				t.Errorf("purge: %v", err)
			}
		})
	}
}

func TestAnAbortedEraseIsNoErase(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("stop"))
	if ev, err := Erase(ctx, dirtyDisk(t, 8<<20), EraseOptions{}); err == nil || ev.Claim != "" {
		t.Errorf("got %+v, %v", ev, err)
	}
}

func TestOnlyWhatWasAcceptedIsErased(t *testing.T) {
	disk := func(serial string, change func(*Device)) Device {
		dev := dirtyDisk(t, 8<<20)
		dev.Serial = serial
		if change != nil {
			change(&dev)
		}
		return dev
	}
	present := []Device{
		disk("A", nil), disk("NEW", nil), disk("", nil), disk("MOUNTED", func(d *Device) { d.Mounted = "/mnt" }),
		disk("BOOT", func(d *Device) { d.BootMedium = true }), disk("SMALLER", nil), disk("TWIN", nil), disk("TWIN", nil),
		disk("CD", func(d *Device) { d.ReadOnly, d.Removable = true, true }),
	}
	accepted := []Accepted{{Serial: "A"}, {Serial: "MOUNTED"}, {Serial: "BOOT"}, {Serial: "GONE"}, {Serial: "SMALLER", SizeBytes: 16 << 20}, {Serial: "TWIN"}, {Serial: ""}}
	slices.SortFunc(present, func(a, b Device) int { return strings.Compare(a.Path, b.Path) })
	before := map[string]string{}
	for _, d := range present {
		before[d.Path] = digestOf(readAll(t, d))
	}
	report, err := EraseAll(t.Context(), accepted, present, EraseOptions{})
	if fleet.CodeOf(err) != "MC-ERASE-INCOMPLETE" {
		t.Fatalf("got %v, want MC-ERASE-INCOMPLETE", err)
	}
	t.Log(err)
	got := map[string]string{}
	for _, f := range report.Faults {
		got[f.Serial] = f.Code
	}
	if diff := cmp.Diff(got, map[string]string{"NEW": "MC-ERASE-UNEXPECTED", "": "MC-ERASE-MISSING", "MOUNTED": "MC-DISK-BUSY", "GONE": "MC-ERASE-MISSING",
		"BOOT": "MC-ERASE-FAILED", "SMALLER": "MC-ERASE-IDENTITY", "TWIN": "MC-ERASE-IDENTITY"}, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == `[""]` }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
	for _, d := range present {
		erased := slices.ContainsFunc(report.Evidence, func(e Evidence) bool { return e.Path == d.Path })
		if touched := digestOf(readAll(t, d)) != before[d.Path]; touched != erased || erased && d.Serial != "A" && d.Serial != "TWIN" {
			t.Errorf("%s %s: touched %v, erased %v", d.Path, d.Serial, touched, erased)
		}
	}
	if len(report.Evidence) != 2 {
		t.Errorf("%d disks erased, want A and one TWIN", len(report.Evidence))
	}
}

func TestAMountedDiskIsRefused(t *testing.T) {
	dev := loopDisk(t, 16<<20, 512)
	h, err := open(dev, os.O_RDWR) // an exclusive opener stands for a mount
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	if _, err := Erase(t.Context(), dev, EraseOptions{}); fleet.CodeOf(err) != "MC-DISK-BUSY" {
		t.Errorf("erase: %v, want MC-DISK-BUSY", err)
	}
	if _, err := WriteImage(t.Context(), dev, fixed("x"), Options{}); fleet.CodeOf(err) != "MC-DISK-BUSY" {
		t.Errorf("write: %v, want MC-DISK-BUSY", err)
	}
}

func TestAnNVMeDriveWithOtherNamespacesThanAcceptedIsNotTouched(t *testing.T) {
	const size = 8 << 20
	one := Accepted{Serial: "N", SizeBytes: size}
	for _, c := range []struct {
		name     string
		accepted []Accepted
		sizes    []int64
		erased   int
	}{
		{"as accepted", []Accepted{one, one}, []int64{size, size}, 2},
		{"accepted without a size", []Accepted{{Serial: "N"}}, []int64{size}, 1},
		{"a namespace was added", []Accepted{one}, []int64{size, size}, 0},
		{"a namespace was added, and no size was accepted", []Accepted{{Serial: "N"}}, []int64{size, size}, 0},
		{"a namespace grew", []Accepted{one, one}, []int64{size, 2 * size}, 0},
		{"a namespace is gone", []Accepted{one, one}, []int64{size}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var present []Device
			for _, n := range c.sizes {
				dev := dirtyDisk(t, int(n))
				dev.Serial, dev.Transport = "N", "nvme"
				present = append(present, dev)
			}
			plan, faults := choose(c.accepted, present)
			erased := 0
			for _, g := range plan {
				erased += len(g)
			}
			if erased != c.erased || (c.erased == 0) != (len(faults) == len(present)) {
				t.Errorf("%d are erased, want %d; faults %+v", erased, c.erased, faults)
			}
			for _, f := range faults {
				if f.Code != "MC-ERASE-UNEXPECTED" || f.Serial != "N" {
					t.Errorf("fault %+v", f)
				}
			}
		})
	}
}

func TestADiskWhoseWorkerPanicsIsNotClean(t *testing.T) {
	a, b := dirtyDisk(t, 8<<20), dirtyDisk(t, 8<<20)
	a.Serial, b.Serial = "A", "B"
	report, err := EraseAll(t.Context(), []Accepted{{Serial: "A"}, {Serial: "B"}}, []Device{a, b}, EraseOptions{Progress: func(d Device, _ Progress) {
		if d.Serial == "A" {
			panic("progress of a defect")
		}
	}})
	if fleet.CodeOf(err) != "MC-ERASE-INCOMPLETE" || len(report.Evidence) != 1 || report.Evidence[0].Serial != "B" {
		t.Fatalf("got %+v, %v", report, err)
	}
	if f := report.Faults; len(f) != 1 || f[0].Serial != "A" || f[0].Code != "MC-ERASE-FAILED" || !strings.Contains(f[0].Message, "progress of a defect") {
		t.Errorf("faults %+v", f)
	}
}
