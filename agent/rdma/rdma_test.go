package rdma

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/sysfs"
	"github.com/metalctl/metalctl/fleet"
)

// eeprom is an EEPROM with what a test sets in it.
func eeprom(size int, set map[int]byte, texts map[int]string) []byte {
	b := make([]byte, size)
	for at, s := range texts {
		copy(b[at:], s)
	}
	for at, v := range set {
		b[at] = v
	}
	return b
}

func TestDecodeModule(t *testing.T) {
	celsius := func(c float64) *float64 { return &c }
	for _, tc := range []struct {
		situation string
		b         []byte
		want      *fleet.PortModule
	}{
		{"OSFP optics with one dark lane of four",
			eeprom(768, map[int]byte{0: 0x19, 14: 47, 256 + 160 - 128: 0x06, 640 + 58: 0x28, 640 + 59: 0xa0, 640 + 62: 0x28, 640 + 63: 0xa0, 640 + 64: 0x28, 640 + 65: 0xa0, 640 + 26: 0x27, 640 + 27: 0x10},
				map[int]string{129: "NVIDIA          ", 148: "MMA4Z00-NS400   ", 166: "MT2345FT00001   "}),
			&fleet.PortModule{Identifier: "OSFP", Vendor: "NVIDIA", Part: "MMA4Z00-NS400", Serial: "MT2345FT00001", TemperatureC: celsius(47),
				LaneRxPowerMW: []float64{1.04, 0, 1.04, 1.04}, LaneTxPowerMW: []float64{1, 0, 0, 0}}},
		{"OSFP copper of two metres", eeprom(256, map[int]byte{0: 0x19, 2: 0x80, 202: 0x42}, map[int]string{148: "MCP4Y10-N002    "}), &fleet.PortModule{Identifier: "OSFP", Part: "MCP4Y10-N002", LengthM: 2}},
		{"QSFP28 optics below zero", eeprom(256, map[int]byte{0: 0x11, 22: 0xff, 23: 0x80, 143: 50, 34: 0x22, 35: 0xc4}, map[int]string{148: "FINISAR CORP.   "}),
			&fleet.PortModule{Identifier: "QSFP28", Vendor: "FINISAR CORP.", LengthM: 100, TemperatureC: celsius(-0.5), LaneRxPowerMW: []float64{0.89, 0, 0, 0}}},
		{"QSFP28 copper", eeprom(256, map[int]byte{0: 0x11, 146: 3, 147: 0xa0, 22: 40}, nil), &fleet.PortModule{Identifier: "QSFP28", LengthM: 3}},
	} {
		got, err := DecodeModule(tc.b)
		if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tc.situation, err, diff)
		}
	}
	for name, b := range map[string][]byte{"cut short": make([]byte, 255), "an SFP": eeprom(256, map[int]byte{0: 3}, nil), "nothing known": make([]byte, 256)} {
		if m, err := DecodeModule(b); err == nil {
			t.Errorf("%s was taken for %+v", name, m)
		}
	}
}

func TestVitalData(t *testing.T) {
	b := []byte("\x82\x02\x00CX\x90\x1d\x00PN\x04P123SN\x05S\x00456V3\x08SMDL=XYZRV\x01\x00\x78")
	want := map[string]string{"PN": "P123", "SN": "S456", "V3": "SMDL=XYZ"}
	if diff := cmp.Diff(want, parseVPD(b)); diff != "" {
		t.Errorf("keywords (-want +got):\n%s", diff)
	}
	for i := range b[:20] {
		if got := parseVPD(b[:i]); len(got) > 0 {
			t.Errorf("the first %d bytes became %v", i, got)
		}
	}
}

func TestRates(t *testing.T) {
	for text, want := range map[string]float64{"400 Gb/sec (4X NDR)": 400, "2.5 Gb/sec (1X SDR)": 2.5, "": -1, "fast": -1, "400": -1, "-1 Gb/sec": -1, "NaN Gb/sec": -1} {
		got, err := parseRate(text)
		if (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// This machine may have RDMA devices or none: either way what cannot be read is said, and nothing else goes wrong.
func TestThisMachine(t *testing.T) {
	names, err := os.ReadDir("/sys/class/infiniband")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	hcas, missing := Read(t.Context(), sysfs.New(""))
	if len(hcas) != len(names) {
		t.Errorf("%d devices of %d, missing %v", len(hcas), len(names), missing)
	}
}

func FuzzDecodeModule(f *testing.F) {
	f.Add(eeprom(768, map[int]byte{0: 0x19, 288: 0x06}, nil))
	f.Add(eeprom(640, map[int]byte{0: 0x11}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeModule(b)
		if (m == nil) == (err == nil) {
			t.Errorf("%v, %v", m, err)
		}
		if m != nil && (m.LengthM < 0 || len(m.LaneRxPowerMW) > 8) {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzParseVPD(f *testing.F) {
	f.Add([]byte("\x82\x02\x00CX\x90\x0d\x00PN\x04P123RV\x03\x00\x00\x00\x78"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for k := range parseVPD(b) {
			if len(k) != 2 {
				t.Errorf("a keyword %q", k)
			}
		}
	})
}
