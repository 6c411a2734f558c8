package hgx_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/bmc"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/verdict"
	"github.com/metalctl/metalctl/redfish"
	"github.com/metalctl/metalctl/redfish/hgx"
)

const password = "Correct-Horse-7-Battery"

// open runs a BMC of a personality, its machine on where that is said, and a client of it.
func open(t *testing.T, personality string, on bool, faults *bmc.BoardFaults) (*bmc.BMC, *redfish.BMC) {
	t.Helper()
	e, err := bmc.New(bmc.Config{Personality: personality, User: "admin", Password: password, Pace: -1, Board: faults, Identity: bmc.Identity{Serial: "HGX1", UUID: "7f0c1f9e-0d4b-4c56-9f0e-1d2c3b4a5f60"}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		<-done
		e.Close()
	})
	url := "https://" + ln.Addr().String()
	c, err := redfish.Dial(t.Context(), url, redfish.Options{Trust: redfish.Trust{CAPEM: e.CA().PEM()}, Credentials: redfish.Credentials{User: "admin", Password: fleet.NewSecret(password)}})
	if err != nil {
		t.Fatal(err)
	}
	if on {
		if err := c.SetPower(t.Context(), redfish.On); err != nil {
			t.Fatal(err)
		}
	}
	return e, c
}

func look(t *testing.T, r *hgx.Reader) fleet.Baseboard {
	t.Helper()
	b, err := r.Baseboard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		t.Fatal("no baseboard")
	}
	return *b
}

// hostOf is the inventory of a host that sees what the board has, with module ids from 1.
func hostOf(b fleet.Baseboard) (inv fleet.Inventory) {
	for i, g := range b.GPUs {
		h := fleet.GPU{Index: i, Vendor: "nvidia", ModuleID: i + 1, Serial: g.Serial, VBIOS: g.VBIOS, PCIAddress: "0000:1" + string(rune('0'+i)) + ":00.0"}
		for _, l := range b.Links {
			if l.A.Part == g.Name {
				h.NVLinks = append(h.NVLinks, fleet.NVLink{Link: l.A.Port, State: fleet.LinkUp})
			}
		}
		inv.GPUs = append(inv.GPUs, h)
	}
	return inv
}

func differences(inv fleet.Inventory, b fleet.Baseboard) string {
	ds, not := verdict.Baseboard(inv, fleet.Class{}, b, nil)
	var out []string
	for _, d := range ds {
		out = append(out, d.Code+" "+d.Component+" "+d.Got)
	}
	return strings.Join(append(out, not...), "\n")
}

// TestH100 reads a whole board: both ends of its 144 links, 66 items of firmware, and what a host that sees the same differs in: nothing.
func TestH100(t *testing.T) {
	e, c := open(t, "ami-dgx-h100", true, nil)
	before := len(e.RequestLog())
	counted := &counting{Service: c}
	b := look(t, hgx.New(counted, time.Now))
	joined, software := 0, 0
	for _, l := range b.Links {
		if l.B != nil && l.A.State == fleet.LinkUp && l.B.State == fleet.LinkUp && l.Doubt == "" && l.B.Peer == l.A.Part+"/"+strconv.Itoa(l.A.Port) {
			joined++
		}
	}
	for _, f := range b.Firmware {
		if strings.HasPrefix(f.ID, "HGX_Driver_") {
			software++
		}
	}
	identities := map[string]bool{}
	for _, r := range b.Roots {
		if !strings.HasPrefix(r.Subject, r.ID) {
			t.Errorf("%s is %q", r.ID, r.Subject)
		}
		identities[r.Identity] = true
	}
	reaching := 0
	for i, r := range b.Retimers {
		if i < 8 && r.GPU == b.GPUs[i].Name && r.Name == "HGX_PCIeRetimer_"+strconv.Itoa(i) && r.Health == "OK" && len(r.Links) == 1 && r.Links[0].Width == 16 && b.FirmwareOf(r.Name) == "2.7.20" {
			reaching++
		}
	}
	got := map[string]any{"retimers": len(b.Retimers), "retimers that reach a GPU": reaching, "identities": len(identities), "gpus": len(b.GPUs), "links": len(b.Links), "joined": joined, "firmware": len(b.Firmware) - software, "software": software, "roots": len(b.Roots), "sensors": len(b.Sensors),
		"missing": len(b.Missing), "clock wrong": b.ClockWrong, "powered": b.Powered, "requests": b.Requests, "unhealthy": len(b.Health)}
	want := map[string]any{"retimers": 10, "retimers that reach a GPU": 8, "identities": 17, "gpus": 8, "links": 144, "joined": 144, "firmware": 66, "software": 12, "roots": 17, "sensors": 93, "missing": 0, "clock wrong": true, "powered": true, "requests": counted.reads, "unhealthy": 0}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("(-got +want):\n%s\n%v", d, b.Missing)
	}
	for _, x := range e.RequestLog()[before:] {
		if x.Method != "GET" {
			t.Errorf("a look did %s %s", x.Method, x.Path)
		}
	}
	if b.Requests > 90 {
		t.Errorf("%d requests", b.Requests)
	}
	if got := differences(hostOf(b), b); got != "" {
		t.Errorf("a host that sees the same differs in:\n%s", got)
	}
	if g := b.GPUs[2]; g.Name != "GPU_SXM_3" || g.Number != 3 || g.MemoryBytes != 81559<<20 || g.PowerLimitWatts == nil || *g.PowerLimitWatts != 700 || g.PCIe == nil || g.PCIe.Width != 16 ||
		g.PCIe.Generation != 5 || g.RemapFailed == nil || *g.RemapFailed || g.Corrected == nil {
		t.Errorf("got %+v", g)
	}
}

// counting counts reads, and those that needed no body.
type counting struct {
	hgx.Service
	reads, same int
}

func (c *counting) Read(ctx context.Context, uri, tag string) ([]byte, string, error) {
	c.reads++
	body, now, err := c.Service.Read(ctx, uri, tag)
	if err == nil && body == nil {
		c.same++
	}
	return body, now, err
}

// plain is a service that says it expands collections and refuses to.
type plain struct{ hgx.Service }

func (p plain) Read(ctx context.Context, uri, tag string) ([]byte, string, error) {
	if strings.Contains(uri, "$expand") {
		return nil, "", fleet.Errorf(fleet.Broken, "MC-BMC-REFUSED", "501")
	}
	return p.Service.Read(ctx, uri, tag)
}

// TestWithoutExpand finds the same board one resource at a time, within the budget, and asks for no firmware item's body twice.
func TestWithoutExpand(t *testing.T) {
	_, c := open(t, "ami-dgx-h100", true, nil)
	counted := &counting{Service: c}
	r := hgx.New(plain{counted}, func() time.Time { return time.Unix(1800000000, 0) })
	got, want := look(t, r), look(t, hgx.New(c, func() time.Time { return time.Unix(1800000000, 0) }))
	t.Logf("%d requests, %d with expanded collections", got.Requests, want.Requests)
	if got.Requests > 550 {
		t.Errorf("%d requests", got.Requests)
	}
	got.Requests, want.Requests = 0, 0
	for _, b := range []fleet.Baseboard{got, want} {
		for i := range b.Sensors {
			b.Sensors[i].Value = 0 // readings move with each second
		}
	}
	if d := cmp.Diff(got, want); d != "" {
		t.Errorf("(-one by one +expanded):\n%s", d)
	}
	counted.same = 0
	look(t, r)
	if counted.same != 66+12+17 {
		t.Errorf("%d resources were not sent again", counted.same)
	}
}

// TestSilent: a BMC that stops answering is left alone after three tries, and what is missing is said.
func TestSilent(t *testing.T) {
	_, c := open(t, "ami-dgx-h100", true, nil)
	dead := &dying{Service: c, after: 12}
	b := look(t, hgx.New(dead, time.Now))
	if dead.asked > 15 || len(b.Missing) == 0 || len(b.Missing) > 20 || b.Requests > 15 {
		t.Errorf("%d requests, %d asked, missing %v", b.Requests, dead.asked, b.Missing)
	}
	for _, l := range b.Links {
		if l.Doubt != "" {
			t.Fatalf("a switch that was not read is no doubt: %+v", l)
		}
	}
	if _, err := hgx.New(&dying{Service: c}, time.Now).Baseboard(t.Context()); fleet.KindOf(err) != fleet.Unavailable {
		t.Errorf("got %v", err)
	}
}

type dying struct {
	hgx.Service
	after, asked int
}

func (d *dying) Read(ctx context.Context, uri, tag string) ([]byte, string, error) {
	if d.asked++; d.asked > d.after {
		return nil, "", fleet.Errorf(fleet.Unavailable, "MC-BMC-UNREACHABLE", "no answer to %s", uri)
	}
	return d.Service.Read(ctx, uri, tag)
}

// TestGB200 has GPUs that count from 0 and no switches on the tray: an end without a named peer is no finding.
func TestGB200(t *testing.T) {
	_, c := open(t, "openbmc-gb200", true, nil)
	b := look(t, hgx.New(c, time.Now))
	if len(b.GPUs) != 4 || b.GPUs[0].Name != "GPU_0" || b.GPUs[0].Number != 0 || len(b.Links) != 72 || len(b.Missing) != 0 {
		t.Errorf("got %d GPUs, %d links, %v", len(b.GPUs), len(b.Links), b.Missing)
	}
	if got := differences(hostOf(b), b); got != "" {
		t.Errorf("differs in:\n%s", got)
	}
}

// TestNoBaseboard: a server without one says so by a nil.
func TestNoBaseboard(t *testing.T) {
	_, c := open(t, "generic", false, nil)
	if b, err := hgx.New(c, time.Now).Baseboard(t.Context()); b != nil || err != nil {
		t.Errorf("got %+v, %v", b, err)
	}
}

// TestBoardFaults: what is wrong with a board is found at the right part, once, and what follows from it is not reported.
func TestBoardFaults(t *testing.T) {
	const gpu3, sw = "/Systems/HGX_Baseboard_0/Processors/GPU_SXM_3", "/Fabrics/HGX_NVLinkFabric_0/Switches/NVSwitch_1/Ports/NVLink_0"
	gone := &bmc.BoardFaults{Gone: []string{gpu3, "/Systems/HGX_Baseboard_0/Memory/GPU_SXM_3_DRAM_0"}}
	several := &bmc.BoardFaults{Stale: true, Set: map[string]map[string]any{
		gpu3 + "/Ports/NVLink_7": {"LinkStatus": "LinkDown", "LinkState": "Enabled"},
		"/Systems/HGX_Baseboard_0/Processors/GPU_SXM_5/Ports/NVLink_2":     {"CurrentSpeedGbps": 106.25},
		"/Systems/HGX_Baseboard_0/Processors/GPU_SXM_6":                    {"FirmwareVersion": "96.00.99.00.01"},
		"/Systems/HGX_Baseboard_0/Processors/GPU_SXM_7/EnvironmentMetrics": {"PowerLimitWatts": map[string]any{"SetPoint": 65535}},
		"/Systems/HGX_Baseboard_0/Memory/GPU_SXM_8_DRAM_0":                 {"Oem": map[string]any{"Nvidia": map[string]any{"RowRemappingFailed": true}}},
		"/ComponentIntegrity/HGX_ERoT_GPU_SXM_2":                           {"ComponentIntegrityEnabled": false},
		"/Fabrics/HGX_NVLinkFabric_0/Switches/NVSwitch_2":                  {"Status": map[string]any{"State": "Enabled", "Health": "Warning"}},
		sw: {"Links": map[string]any{"ConnectedPorts": []any{map[string]any{"@odata.id": "/redfish/v1/Systems/HGX_Baseboard_0/Processors/GPU_SXM_8/Ports/NVLink_17"}}}},
	}}
	whole := func(t *testing.T) fleet.Inventory {
		_, c := open(t, "ami-dgx-h100", true, nil)
		return hostOf(look(t, hgx.New(c, time.Now)))
	}
	host := whole(t)
	t.Run("only the host sees a GPU", func(t *testing.T) {
		_, c := open(t, "ami-dgx-h100", true, gone)
		b := look(t, hgx.New(c, time.Now))
		if got, want := differences(host, b), "MC-BOARD-GPU-BMC gpu/3 absent"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		less := host
		less.GPUs = slices.Delete(slices.Clone(host.GPUs), 2, 3)
		if got, want := differences(less, b), "MC-BOARD-GPU-NONE gpu/3 absent"; got != want {
			t.Errorf("neither sees it: got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("several", func(t *testing.T) {
		_, c := open(t, "ami-dgx-h100", true, several)
		b := look(t, hgx.New(c, time.Now))
		want := strings.Join([]string{
			"MC-BOARD-LINK-ENDS gpu/3/nvlink/7 down on one side",
			"MC-BOARD-LINK-SLOW gpu/5/nvlink/2 106.25 Gbit/s",
			"MC-GPU-REMAP-FAILED gpu/8 true",
			"MC-BOARD-ROOT board/HGX_ERoT_GPU_SXM_2 Enabled OK",
			"MC-BOARD-HEALTH board/NVSwitch_2 Warning",
			"MC-BOARD-LINK-ENDS board/NVSwitch_1/nvlink/0 another peer",
			"MC-BOARD-LINK-ENDS gpu/1/nvlink/4 another peer",
			"MC-BOARD-FIRMWARE gpu/6 96.00.99.00.01",
			"bmc: 93 of 93 sensor values are stale"}, "\n")
		got := differences(host, b)
		a, w := strings.Split(got, "\n"), strings.Split(want, "\n")
		slices.Sort(a)
		slices.Sort(w)
		if d := cmp.Diff(a, w); d != "" {
			t.Errorf("(-got +want):\n%s", d)
		}
		if b.GPUs[6].PowerLimitWatts != nil {
			t.Errorf("65535 was taken for a limit: %d", *b.GPUs[6].PowerLimitWatts)
		}
	})
	t.Run("without power", func(t *testing.T) {
		_, c := open(t, "ami-dgx-h100", false, nil)
		b := look(t, hgx.New(c, time.Now))
		if got := differences(host, b); !strings.HasPrefix(got, "bmc: the baseboard has no power") {
			t.Errorf("got %s", got)
		}
	})
}
