package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

const tenantGUID = "b6f5d5f0-9c4b-4d8e-8f5a-0a1b2c3d4e5f"

func TestCleaningVariables(t *testing.T) {
	type namespaces = map[string][]string
	for name, c := range map[string]struct {
		remove namespaces
		left   []string
		faults []string // with what they say
		said   string
	}{
		"nobody could tell": {nil, []string{"BootOrder", "Lang", "PK", "X", "Y"}, nil, "skipped"},
		"nothing is new":    {namespaces{}, []string{"BootOrder", "Lang", "PK", "X", "Y"}, nil, "removed"},
		"two are new":       {namespaces{tenantGUID: {"X", "Y"}}, []string{"BootOrder", "Lang", "PK"}, nil, "removed"},
		"one that is gone":  {namespaces{tenantGUID: {"Z"}}, []string{"BootOrder", "Lang", "PK", "X", "Y"}, nil, "removed"},
		"what firmware needs is refused, and the rest goes": {namespaces{fleet.EFIGlobal: {"PK", "Lang", "BootOrder"}, tenantGUID: {"X"}}, []string{"BootOrder", "Lang", "PK", "Y"},
			[]string{"BootOrder it is never removed", "Lang it is never removed", "PK it is never removed"}, ""},
		"a path":                   {namespaces{tenantGUID: {"../efivars/X"}}, []string{"BootOrder", "Lang", "PK", "X", "Y"}, []string{"../efivars/X no variable's name"}, ""},
		"a namespace that is none": {namespaces{"..": {"X"}}, []string{"BootOrder", "Lang", "PK", "X", "Y"}, []string{"X no variable's name"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1<<20)
			vars := t.TempDir()
			for file, data := range map[string]string{"BootOrder-" + fleet.EFIGlobal: "", "Lang-" + fleet.EFIGlobal: "en", "PK-" + fleet.EFIGlobal: "key", "X-" + tenantGUID: "secret", "Y-" + tenantGUID: ""} {
				if err := os.WriteFile(filepath.Join(vars, file), []byte("\x07\x00\x00\x00"+data), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l.deps.Vars, l.deps.Inspect.System = vars, &fleet.System{Serial: "S", FirmwareMode: "uefi"}
			l.run()
			r := l.do(step.CleanVars, step.VariablesParams{Remove: c.remove})
			var faults []string
			if r.Error != nil {
				for i, f := range r.Error.Faults {
					name := strings.TrimPrefix(f.Component, "firmware/variables/")
					name = name[:strings.LastIndex(name, "-"+guidOf(c.remove, i))]
					if i < len(c.faults) && strings.Contains(f.Evidence, strings.TrimPrefix(c.faults[i], name+" ")) {
						faults = append(faults, c.faults[i])
					} else {
						faults = append(faults, name+" "+f.Evidence)
					}
				}
			} else if !strings.Contains(string(r.Evidence), c.said) {
				t.Errorf("evidence %s", r.Evidence)
			}
			if d := cmp.Diff(faults, c.faults); d != "" {
				t.Error(d)
			}
			inv, err := inspect.Read(t.Context(), inspect.Options{System: l.deps.Inspect.System, Variables: vars, Only: []string{inspect.PartVars}})
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, v := range inv.Variables {
				left = append(left, v.Name)
			}
			if d := cmp.Diff(left, c.left); d != "" {
				t.Errorf("left (-got +want):\n%s", d)
			}
			want := fleet.EFIVariable{Name: "Lang", GUID: fleet.EFIGlobal, Attributes: 7, SizeBytes: 2, SHA256: hexSum([]byte("en"))}
			if !slices.Contains(inv.Variables, want) {
				t.Errorf("no %+v in %+v", want, inv.Variables)
			}
		})
	}
}

// guidOf is the namespace of the i-th fault in these cases.
func guidOf(remove map[string][]string, i int) string {
	for guid, names := range remove {
		if len(remove) == 1 || guid == fleet.EFIGlobal && i < len(names) {
			return guid
		}
	}
	return ""
}
