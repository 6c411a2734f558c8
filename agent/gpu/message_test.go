package gpu

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

func TestDecodeMessageRefuses(t *testing.T) {
	for name, c := range map[string]struct{ line, want string }{
		"no JSON":              {"SIGSEGV: segmentation violation", "no message"},
		"nothing":              {"{}", "0 parts"},
		"two parts":            {`{"call":"nvmlInit_v2","done":true}`, "2 parts"},
		"two messages":         {`{"done":true}{"done":true}`, "more than a message"},
		"an unknown key":       {`{"done":true,"shell":"x"}`, "no message"},
		"a call that is none":  {`{"call":"rm -rf /"}`, "no function"},
		"control characters":   {`{"missing":{"what":"a","why":"\u001b[2J"}}`, "not printable"},
		"endless text":         {`{"missing":{"what":"a","why":"` + strings.Repeat("x", maxText+1) + `"}}`, "too long"},
		"too many GPUs":        {`{"survey":{"driver":{"name":"nvidia"},"gpus":999}}`, "999 GPUs"},
		"a GPU that cannot be": {`{"gpu":{"index":-5}}`, "cannot be"},
		"a place alone":        {`{"at":"0000:48:00.0","done":true}`, "a place without a call"},
		"no finite value":      {`{"load":{"measures":[{"check":"gpu-fp32","sum":1e308,"weight":1e-308}]}}`, "gpu-fp32"},
		"too many details":     {`{"load":{"measures":[{"check":"x","details":[` + strings.Repeat(`"",`, maxDetails) + `""]}]}}`, "21 details"},
		"tiles without SMs":    {`{"load":{"results":[{"kernel":"k","digests":[1,2],"sms":[[1]]}]}}`, "results that cannot be"},
		"an oddity of no tile": {`{"load":{"results":[{"kernel":"k","digests":[1],"sms":[[1]],"odd":[{"tile":1}]}]}}`, "oddity"},
		"a line without end":   {strings.Repeat(" ", maxLine+1), "bytes"},
	} {
		if _, err := decodeMessage([]byte(c.line)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	line, err := json.Marshal(message{GPU: &fleet.GPU{Index: 3, PCIAddress: "0000:48:00.0", Model: "NVIDIA H100"}})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := decodeMessage(line); err != nil || m.GPU == nil || m.GPU.Index != 3 {
		t.Errorf("a good one: %+v, %v", m, err)
	}
}

// FuzzDecodeMessage: what a child writes is refused or is a message that can be written again.
func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte(`{"call":"nvmlDeviceGetName"}`))
	f.Add([]byte(`{"gpu":{"index":3,"vendor":"nvidia","model":"x","pci_address":"0000:48:00.0","numa_node":-1,"nvlinks":[{"link":0,"state":"up","errors":{"crc":1}}]}}`))
	f.Add([]byte(`{"peers":{"0000:48:00.0":{"0000:58:00.0":"ok"}}}`))
	f.Add([]byte(`{"load":{"turns":1,"measures":[{"check":"gpu-fp32","from":"0000:48:00.0","sum":1,"weight":2}],"results":[{"kernel":"k","digests":[1],"sms":[[1]],"odd":[{"tile":0,"digest":2,"count":9}]}]}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := decodeMessage(line)
		if err != nil {
			return
		}
		if _, err := json.Marshal(m); err != nil {
			t.Error(err)
		}
		if m.Load != nil { // whatever it reports, it can be voted on
			found := compareResults(map[string]*loadReport{"gpu/1": m.Load, "gpu/2": m.Load}, nil)
			for _, x := range found.measured() {
				if x.Value < 0 {
					t.Errorf("%+v", x)
				}
			}
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		mask uint32
		want string
	}{{0, ""}, {0x11aa, ""}, {0x11a9, "degraded-bandwidth"}, {0x11a6, "route-recovery"}, {0x119a, "route-unhealthy"}, {0x116a, "access-timeout-recovery"},
		{0x14aa, "no-partition"}, {0x15a9, "degraded-bandwidth too-few-nvlinks"}, {0x1faa, "incorrect-configuration"}} {
		if got := strings.Join(fabricHealth(c.mask), " "); got != c.want {
			t.Errorf("health %#x: got %q, want %q", c.mask, got, c.want)
		}
	}
	for mask, want := range map[uint64]string{0: "", 1: "idle", 0x48: "hw-slowdown hw-thermal-slowdown", 0x1004: "sw-power-cap unknown"} {
		if got := strings.Join(clockReasons(mask), " "); got != want {
			t.Errorf("reasons %#x: got %q, want %q", mask, got, want)
		}
	}
	for n, want := range map[int64]float64{15<<8 | 255: 0, 3<<8 | 12: 3e-12, 1 << 8: 1} {
		if got := bitErrorRate(n); got < want*0.999999 || got > want*1.000001 {
			t.Errorf("rate %#x: got %g, want %g", n, got, want)
		}
	}
	for n, want := range map[int64]string{6: "4.0", 7: "5.0", 99: "unknown", -1: "unknown"} {
		if got := linkVersion(n); got != want {
			t.Errorf("version %d: got %q, want %q", n, got, want)
		}
	}
	for speed, want := range map[string]int{"32.0 GT/s PCIe": 5, "16.0 GT/s PCIe": 4, "2.5 GT/s PCIe": 1, "": 0, "Unknown": 0} {
		if got := generation(speed); got != want {
			t.Errorf("%q: got %d, want %d", speed, got, want)
		}
	}
}
