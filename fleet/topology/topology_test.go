package topology

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func load(t *testing.T, kind string) fleet.Inventory {
	t.Helper()
	b, err := os.ReadFile("testdata/" + kind + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var inv fleet.Inventory
	if err := json.Unmarshal(b, &inv); err != nil {
		t.Fatal(err)
	}
	return inv
}

func namesOf(inv *fleet.Inventory) Names {
	return Names{GPU: func(i int) string { return fmt.Sprintf("gpu/%d", inv.GPUs[i].ModuleID) }}
}

func wrong(component, words string) fleet.Difference {
	return fleet.Difference{Component: component, Blocks: fleet.BlocksAllocate, Words: words}
}

// hurt is an H200 machine with something wrong at every kind of part.
func hurt(t *testing.T) (fleet.Inventory, []fleet.Difference) {
	inv := load(t, "hgx-h200")
	inv.GPUs[3].NVLinks[11].State = fleet.LinkDown
	inv.HCAs[5].Ports[0].State, inv.HCAs[5].Ports[0].PhysicalState = "DOWN", "Polling"
	inv.Rails[6].HCA = ""
	inv.HCAs = slices.Delete(inv.HCAs, 6, 7)
	return inv, []fleet.Difference{
		wrong("gpu/3/nvlink/11", "GPU 3 (serial 1650000003, at 0000:5d:00.0): NVLink 11 of 18, which leads to NVSwitch 2 port 52, is down"),
		wrong("hca/mlx5_5/port/1", "mlx5_5 port 1 (0xa088c20300e30005, rail 5) is not up: DOWN, Polling"),
		wrong("rail/6", "rail 6 has no HCA: none shares a PCIe switch with GPU 6 at 0000:cb:00.0"),
		wrong("gpu/9", "GPU 9 (module id 9) is missing: PCI does not show it"),
		{Component: "disk/nvme2n1", Blocks: fleet.BlocksNothing, Words: "nvme2n1 (MZWLJ3T8, serial S5H9NS2) is <strange> & \"odd\""},
	}
}

func layouts(t *testing.T) map[string]Layout {
	out := map[string]Layout{}
	for _, kind := range []string{"dgx-a100", "hgx-h200", "hgx-b200"} {
		inv := load(t, kind)
		out[kind] = Of("node-1, "+inv.System.Model, inv, nil, namesOf(&inv))
	}
	inv, ds := hurt(t)
	out["hurt"] = Of("node-2, hgx-h200", inv, ds, namesOf(&inv))
	out["plain"] = Of("node-3", fleet.Inventory{NUMANodes: []fleet.NUMANode{{ID: 0}}, NICs: []fleet.NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}}, Disks: []fleet.Disk{{Name: "sda", SizeBytes: 1e12}}}, nil, Names{})
	return out
}

// TestPicturesGolden compares each picture with the one in testdata; METALCTL_UPDATE=1 writes them anew.
func TestPicturesGolden(t *testing.T) {
	for name, l := range layouts(t) {
		for file, got := range map[string]string{name + ".svg": string(l.SVG()), name + ".txt": l.Text(TextOptions{Width: 110, Unicode: true})} {
			path := "testdata/" + file
			if os.Getenv("METALCTL_UPDATE") != "" {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("%s (-want +got):\n%s", file, d)
			}
		}
		if d := cmp.Diff(string(l.SVG()), string(layouts(t)[name].SVG())); d != "" {
			t.Errorf("%s is drawn otherwise the second time", name)
		}
	}
}

// TestSVGWhole: the picture is well-formed, and no text is wider than its box allows or leaves the picture.
func TestSVGWhole(t *testing.T) {
	for name, l := range layouts(t) {
		d := xml.NewDecoder(strings.NewReader(string(l.SVG())))
		texts := 0
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "text" {
				texts++
			}
		}
		if texts < 3 {
			t.Errorf("%s has %d texts", name, texts)
		}
	}
}

func TestText(t *testing.T) {
	l := layouts(t)["hurt"]
	for _, w := range []int{20, 60, 80, 200} {
		for _, u := range []bool{true, false} {
			s := l.Text(TextOptions{Width: w, Unicode: u})
			for _, line := range strings.Split(s, "\n") {
				if n := utf8.RuneCountInString(line); n > w && w >= 30 {
					t.Errorf("%d columns of %d: %q", n, w, line)
				}
				if !u && len(line) != utf8.RuneCountInString(line) {
					t.Errorf("not plain: %q", line)
				}
			}
			if strings.Contains(s, "\x1b") {
				t.Error("colour that nobody asked for")
			}
		}
	}
	if s := l.Text(TextOptions{Colour: true}); !strings.Contains(s, "\x1b[31m") || !strings.Contains(s, "\x1b[33m") {
		t.Errorf("no colours in %q", s)
	}
}
