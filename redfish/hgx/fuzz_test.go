package hgx

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// FuzzDecoders: whatever one resource says, every decoder comes back, and nothing is beyond its bounds.
func FuzzDecoders(f *testing.F) {
	f.Add([]byte(`{"@odata.id":"/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_1","ProcessorType":"GPU","MemorySummary":{"TotalMemorySizeMiB":81559},"SystemInterface":{"PCIe":{"PCIeType":"Gen5","LanesInUse":16}},"Status":{"State":"Enabled","Health":"OK"}}`))
	f.Add([]byte(`{"@odata.id":"/a/GPU_0/Ports/NVLink_3","LinkStatus":"LinkUp","CurrentSpeedGbps":"212.496","MaxSpeedGbps":212.496,"Links":{"ConnectedPorts":[{"@odata.id":"/b/NVSwitch_0/Ports/NVLink_7"}]}}`))
	f.Add([]byte(`{"Timestamp":"1970-01-01T00:03:12+00:00","MetricValues":[{"MetricProperty":"/c/Sensors/T0","MetricValue":"27","Oem":{"Nvidia":{"MetricValueStale":true}}},{"MetricProperty":"/GPU_0#/Status/Health","MetricValue":"Critical"}]}`))
	f.Add([]byte(`{"PowerLimitWatts":{"SetPoint":65535},"LifeTime":{"CorrectableECCErrorCount":-1},"Oem":{"Nvidia":{"RowRemappingFailed":true}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decode(b)
		if err != nil {
			return
		}
		g := gpuOf(o)
		memoryOf(&g, o)
		if g.Number < -1 || g.MemoryBytes < 0 || len(g.Serial) > 200 || strings.ContainsAny(g.Model, "\n\x1b") {
			t.Errorf("got %+v", g)
		}
		if w := powerLimit(o); w != nil && (*w <= 0 || *w >= noLimit) {
			t.Errorf("limit %d", *w)
		}
		p, _ := portOf("GPU_0", o)
		switch p.State {
		case fleet.LinkUp, fleet.LinkDown, fleet.LinkDisabled, fleet.LinkUnknown:
		default:
			t.Errorf("state %q", p.State)
		}
		w := &walk{Reader: New(nil, time.Now), board: &fleet.Baseboard{Health: map[string]string{}}}
		w.report(o)
		if len(w.board.Sensors) > 1000 {
			t.Errorf("%d sensors", len(w.board.Sensors))
		}
	})
}

// mirror answers every read with the same body.
type mirror struct{ body []byte }

func (m mirror) Read(context.Context, string, string) ([]byte, string, error) {
	return m.body, `"1"`, nil
}

// FuzzService: a service that says the same of everything, as a loop of links does, ends a look within its budget.
func FuzzService(f *testing.F) {
	f.Add([]byte(`{"@odata.id":"/redfish/v1","Systems":{"@odata.id":"/s"},"Processors":{"@odata.id":"/p"},"ProcessorType":"GPU","Members":[{"@odata.id":"/m"}],"Ports":{"@odata.id":"/x"},"Fabrics":{"@odata.id":"/f"},"Switches":{"@odata.id":"/w"},"UpdateService":{"@odata.id":"/u"},"FirmwareInventory":{"@odata.id":"/i"},"ComponentIntegrity":{"@odata.id":"/c"},"Members@odata.nextLink":"/redfish/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := New(mirror{b}, time.Now)
		board, err := m.Baseboard(context.Background())
		if m.spent > maxRequests || m.cached > maxCached {
			t.Errorf("%d requests, %d bytes kept", m.spent, m.cached)
		}
		if err != nil && board != nil {
			t.Error("a board and an error")
		}
	})
}

// FuzzJoin: however ends point at each other, each is in the graph once.
func FuzzJoin(f *testing.F) {
	f.Add("abba", true)
	f.Add("a-cb", false)
	f.Fuzz(func(t *testing.T, s string, complete bool) {
		ports, peers, order := map[string]fleet.BoardPort{}, map[string]string{}, []string{}
		for i, r := range s {
			uri := string(rune('a' + i%26))
			if _, twice := ports[uri]; twice {
				continue
			}
			ports[uri], order = fleet.BoardPort{Part: uri, Port: i}, append(order, uri)
			if r != '-' {
				peers[uri] = string(r)
			}
		}
		seen := map[string]int{}
		for _, l := range join(ports, peers, order, complete) {
			seen[l.A.Part]++
			if l.B != nil {
				seen[l.B.Part]++
			}
			if !complete && l.Doubt == fleet.LinkOneSided {
				t.Error("a doubt over an end that nobody read")
			}
		}
		for uri := range ports {
			if seen[uri] != 1 {
				t.Errorf("%s is there %d times", uri, seen[uri])
			}
		}
	})
}
