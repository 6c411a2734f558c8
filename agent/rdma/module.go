package rdma

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/metalctl/metalctl/fleet"
)

// moduleDir is where a recording keeps EEPROMs, by network interface.
const moduleDir = "modules"

// module reads the EEPROM behind a port's first interface; nil where nothing is plugged in, or nobody can tell.
func (r *reading) module(what string, interfaces []string) *fleet.PortModule {
	if len(interfaces) == 0 {
		return nil
	}
	var b []byte
	var err error
	if r.Live() {
		b, err = readModule(interfaces[0])
		if errors.Is(err, errNoModule) {
			return nil
		}
		if err == nil {
			r.Keep(moduleDir+"/"+interfaces[0], b)
		}
	} else if b, err = r.Bytes(moduleDir, interfaces[0]); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var m *fleet.PortModule
	if err == nil {
		m, err = DecodeModule(b)
	}
	if err != nil {
		r.missing(what+" module", err)
	}
	return m
}

// Identifiers of modules (SFF-8024 revision 4.11, table 4-1).
var identifiers = map[byte]string{0x03: "SFP", 0x0c: "QSFP", 0x0d: "QSFP+", 0x11: "QSFP28", 0x18: "QSFP-DD", 0x19: "OSFP", 0x1e: "QSFP112"}

// DecodeModule decodes an EEPROM: first the lower 128 bytes and page 00h, then, where the module has them, for CMIS the pages 01h, 02h, 10h and 11h in this
// order, 128 bytes each (SFF-8636 has all that is wanted in the first 256).
func DecodeModule(b []byte) (*fleet.PortModule, error) {
	if len(b) < 256 {
		return nil, fmt.Errorf("the module's EEPROM has %d bytes, not 256 or more", len(b))
	}
	name, known := identifiers[b[0]]
	switch {
	case !known:
		return nil, fmt.Errorf("the module's identifier %#02x is not known", b[0])
	case b[0] == 0x03:
		return nil, errors.New("the module is an SFP, which no GPU node's fabric uses; its EEPROM is of another form")
	case b[0] >= 0x18:
		return decodeCMIS(name, b), nil
	}
	return decodeSFF8636(name, b), nil
}

// decodeSFF8636 reads QSFP to QSFP28 (SFF-8636 revision 2.11, sections 6.2 and 6.3).
func decodeSFF8636(name string, b []byte) *fleet.PortModule {
	m := &fleet.PortModule{Identifier: name, Vendor: plainText(b[148:164]), Part: plainText(b[168:184]), Serial: plainText(b[196:212])}
	copper := b[147]>>4 >= 0x0a
	switch {
	case b[142] != 0:
		m.LengthM = float64(b[142]) * 1000
	case copper || b[146] != 0 && b[143] == 0:
		m.LengthM = float64(b[146])
		if !copper {
			m.LengthM *= 2 // OM4, in units of two metres
		}
	default:
		m.LengthM = float64(b[143]) * 2
	}
	if copper {
		return m
	}
	m.TemperatureC = temperature(b[22:])
	m.LaneRxPowerMW = power(b[34:42])
	if b[220]&0x04 != 0 { // transmitted power is measured
		m.LaneTxPowerMW = power(b[50:58])
	}
	return m
}

// decodeCMIS reads QSFP-DD, OSFP and QSFP112 (CMIS 5.2, sections 8.2 to 8.9).
func decodeCMIS(name string, b []byte) *fleet.PortModule {
	m := &fleet.PortModule{Identifier: name, Vendor: plainText(b[129:145]), Part: plainText(b[148:164]), Serial: plainText(b[166:182])}
	m.LengthM = float64(b[202]&0x3f) * []float64{0.1, 1, 10, 100}[b[202]>>6]
	if b[2]&0x80 != 0 || len(b) < 128*6 {
		return m // flat memory: passive copper
	}
	m.TemperatureC = temperature(b[14:])
	monitors := b[256+160-128:]
	page11 := b[128*5:]
	if monitors[0]&0x04 != 0 {
		m.LaneRxPowerMW = power(page11[186-128 : 202-128])
	}
	if monitors[0]&0x02 != 0 {
		m.LaneTxPowerMW = power(page11[154-128 : 170-128])
	}
	return m
}

// temperature is in 1/256 °C; a module that does not measure says 0.
func temperature(b []byte) *float64 {
	n := int16(binary.BigEndian.Uint16(b))
	if n == 0 {
		return nil
	}
	c := math.Round(float64(n)/256*10) / 10
	return &c
}

// power is in units of 0.1 µW by lane. Lanes behind the last one that has any are not used.
func power(b []byte) []float64 {
	var out []float64
	last := 0
	for i := 0; i+1 < len(b); i += 2 {
		n := binary.BigEndian.Uint16(b[i:])
		out = append(out, float64(n)/10000)
		if n > 0 {
			last = len(out)
		}
	}
	// Four lanes are the fewest that a port of InfiniBand has: a dark one of them must be seen.
	return out[:max(last, min(4, len(out)))]
}
