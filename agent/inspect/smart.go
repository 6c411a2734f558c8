package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// smartDir is where a recording keeps the log page 02h of each NVMe controller, by its name.
const smartDir = "smart"

// smart reads a drive's account of its health; nil, and the reason in Missing, where it cannot be had.
func (r *reading) smart(ctx context.Context, d fleet.Disk) *fleet.Smart {
	var b []byte
	var err error
	controller := path.Base(path.Dir(r.fs.Device("sys/block", d.Name)))
	switch {
	case !r.fs.Live():
		if b, err = r.fs.Bytes(smartDir, controller); errors.Is(err, fs.ErrNotExist) {
			return nil // a recording without logs is no drive without health
		}
	case r.opts.SmartLog == nil:
		return nil
	default:
		if b, err = r.opts.SmartLog(ctx, d); err == nil {
			r.fs.Keep(smartDir+"/"+controller, b)
		}
	}
	var s *fleet.Smart
	if err == nil {
		s, err = parseSmart(b)
	}
	if err != nil {
		r.missing("disk/"+d.Name+" smart", err)
	}
	return s
}

// criticalWarnings are the bits of byte 0, from bit 0 on.
var criticalWarnings = []string{"spare-low", "temperature", "degraded", "read-only", "backup-failed", "pmr-unreliable"}

// parseSmart decodes the log page 02h (NVM Express Base Specification 2.0c, figure 207).
func parseSmart(b []byte) (*fleet.Smart, error) {
	if len(b) < 512 {
		return nil, fmt.Errorf("the health log has %d bytes, not 512", len(b))
	}
	le := binary.LittleEndian
	// Counters have 128 bits; what passes 63 is shown as the most.
	count := func(at int, unit uint64) int64 {
		lo, hi := le.Uint64(b[at:]), le.Uint64(b[at+8:])
		if hi != 0 || lo > math.MaxInt64/unit {
			return math.MaxInt64
		}
		return int64(lo * unit)
	}
	kelvin := int(le.Uint16(b[1:]))
	if kelvin == 0 && b[3] == 0 && strings.Trim(string(b), "\x00") == "" {
		return nil, errors.New("the health log is empty")
	}
	s := &fleet.Smart{
		TemperatureC: kelvin - 273, SparePercent: int(b[3]), SpareThreshold: int(b[4]), UsedPercent: int(b[5]),
		ReadBytes: count(32, 512_000), WrittenBytes: count(48, 512_000), PowerOnHours: count(128, 1), UnsafeShutdowns: count(144, 1),
		MediaErrors: count(160, 1), ErrorLogEntries: count(176, 1),
	}
	for bit, word := range criticalWarnings {
		if b[0]&(1<<bit) != 0 {
			s.CriticalWarning = append(s.CriticalWarning, word)
		}
	}
	return s, nil
}
