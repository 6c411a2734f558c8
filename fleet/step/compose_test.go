package step

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

func plain() PlanFacts {
	return PlanFacts{
		Node: fleet.Node{ID: "n", Name: "n1", Class: "c", Inventory: "sha256:i", Boot: fleet.BootRecord{Protocol: newest()}, BMC: fleet.BMC{Serial: "SN", UUID: "U"},
			Accepted: []fleet.AcceptedDevice{{Serial: "A", SizeBytes: 1}, {Serial: "B", SizeBytes: 2}}},
		Class: fleet.Class{Name: "c", BurnIn: "none", EraseLevel: "purge"},
		Image: &fleet.Image{Name: "debian", SHA256: "d"},
		Lease: &fleet.Lease{ID: "l", UserData: "sha256:u", Request: fleet.LeaseRequest{Image: "debian"}},
		Member: &fleet.Member{
			Node: "n", Name: "n1", Hostname: "host"},
	}
}

// newest is the version of the agent's protocol that knows every step.
func newest() int {
	out := 1
	for _, s := range Catalogue {
		out = max(out, s.Agent)
	}
	return out
}

func names(p Plan) string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

// withPacks is a class that wants one pack by name and one by digest.
func withPacks(f *PlanFacts) {
	f.Packs = []fleet.Pack{{Name: "old", Version: "1", SHA256: strings.Repeat("0", 64)}, {Name: "nvidia", Version: "580", SHA256: strings.Repeat("a", 64)}, {Name: "tools", Version: "2", SHA256: strings.Repeat("b", 64)}}
	f.Class.Packs = []string{"nvidia@580", "sha256:" + strings.Repeat("b", 64)}
}

// has lets the boot that is up have some packs.
func has(f *PlanFacts, digests ...string) {
	f.AgentUp, f.Node.Boot.Packs = true, fleet.PackMark(digests)
}

func TestComposePacks(t *testing.T) {
	f := plain()
	withPacks(&f)
	p, err := Compose(Clean, f, Request{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(p.Steps, func(s Planned) bool { return s.Name == FetchPacks })
	var got PacksParams
	if err := json.Unmarshal(p.Steps[i].Params, &got); err != nil {
		t.Fatal(err)
	}
	want := PacksParams{Packs: []PackParams{{Name: "nvidia", Version: "580", SHA256: strings.Repeat("a", 64)}, {Name: "tools", Version: "2", SHA256: strings.Repeat("b", 64)}}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("packs (-got +want)\n%s", diff)
	}
	f.Class.Packs = append(f.Class.Packs, "absent@1")
	if _, err := Compose(Clean, f, Request{}); fleet.CodeOf(err) != "MC-PACK-UNKNOWN" || !strings.Contains(err.Error(), "absent@1") {
		t.Errorf("a pack that the server does not have: %v", err)
	}
	if p, err := Compose(Inspect, f, Request{OutOfBand: true}); err != nil || names(p) != "bmc-identify" {
		t.Errorf("through the BMC alone no pack is needed: %s, %v", names(p), err)
	}
}

func TestCompose(t *testing.T) {
	const boot = "bmc-identify power-off media-insert boot-from-media power-on await-agent"
	const write = "write-image verify-image config-drive boot-entry attach-tenant media-eject agent-shutdown power-off boot-from-disk power-on await-ready"
	up := func(f *PlanFacts) { f.AgentUp = true }
	off := func(f *PlanFacts) { f.Power = "off" }
	for name, c := range map[string]struct {
		use     Use
		facts   func(*PlanFacts)
		request Request
		want    string
		reboots int
	}{
		"inspect of a machine that is off":          {Inspect, off, Request{}, "bmc-identify media-insert boot-from-media power-on await-agent inventory compare-class read-baseboard", 1},
		"inspect of a running machine, allowed":     {Inspect, nil, Request{AllowReboot: true}, boot + " inventory compare-class read-baseboard", 1},
		"inspect of a running machine, node allows": {Inspect, func(f *PlanFacts) { f.Node.AllowReboot = true }, Request{}, boot + " inventory compare-class read-baseboard", 1},
		"inspect with the agent up":                 {Inspect, up, Request{}, "inventory compare-class read-baseboard", 0},
		"release in the middle of a boot": {Release, func(f *PlanFacts) {
			f.Node.Boot.MediaID, f.Node.Undo = "m", &fleet.Undo{Power: true, Override: true, Medium: true}
		}, Request{}, "isolate power-off boot-from-disk media-eject", 0},
		"undo of everything": {Undo, func(f *PlanFacts) {
			f.Node.Undo = &fleet.Undo{Wires: true, Power: true, Override: true, Medium: true}
		}, Request{}, "isolate bmc-identify power-off boot-from-disk media-eject", 0},
		"undo of the medium alone":      {Undo, func(f *PlanFacts) { f.Node.Undo = &fleet.Undo{Medium: true} }, Request{}, "bmc-identify media-eject", 0},
		"undo of the wires alone":       {Undo, func(f *PlanFacts) { f.Node.Undo = &fleet.Undo{Wires: true} }, Request{}, "isolate", 0},
		"inspect through the BMC alone": {Inspect, nil, Request{OutOfBand: true}, "bmc-identify", 0},
		"inspect with packs":            {Inspect, func(f *PlanFacts) { off(f); withPacks(f) }, Request{}, "bmc-identify media-insert boot-from-media power-on await-agent fetch-packs inventory compare-class read-baseboard", 1},
		"the agent has no packs yet":    {Inspect, func(f *PlanFacts) { up(f); withPacks(f) }, Request{}, "fetch-packs inventory compare-class read-baseboard", 0},
		"the agent has other packs":     {Inspect, func(f *PlanFacts) { withPacks(f); has(f, "0", "1") }, Request{}, "fetch-packs inventory compare-class read-baseboard", 0},
		"the agent has these packs":     {Inspect, func(f *PlanFacts) { withPacks(f); has(f, strings.Repeat("b", 64), strings.Repeat("a", 64)) }, Request{}, "inventory compare-class read-baseboard", 0},
		"packs of a boot that is over": {Inspect, func(f *PlanFacts) {
			withPacks(f)
			has(f, strings.Repeat("b", 64), strings.Repeat("a", 64))
			f.AgentUp = false
			off(f)
		}, Request{}, "bmc-identify media-insert boot-from-media power-on await-agent fetch-packs inventory compare-class read-baseboard", 1},
		"deploy with packs":             {Deploy, func(f *PlanFacts) { up(f); withPacks(f) }, Request{}, "fetch-packs inventory compare-class " + write, 1},
		"release of a class with packs": {Release, withPacks, Request{}, "isolate power-off", 0},
		"clean with the agent up":       {Clean, up, Request{}, "inventory compare-class compare-accepted erase-disks verify-erase clean-boot-entries", 0},
		"clean where variables and namespaces were accepted": {Clean, func(f *PlanFacts) {
			f.AgentUp, f.Node.AcceptedVariables, f.Node.Accepted[0].BlockBytes = true, true, 512
		}, Request{}, "restore-namespaces inventory compare-class compare-accepted erase-disks verify-erase clean-boot-entries clean-variables", 0},
		"clean after a release": {Clean, off, Request{}, "bmc-identify media-insert boot-from-media power-on await-agent inventory compare-class compare-accepted erase-disks verify-erase clean-boot-entries", 1},
		"clean of a class that is powered off": {Clean, func(f *PlanFacts) { f.AgentUp, f.Class.PowerOffAvailable = true, true }, Request{},
			"inventory compare-class compare-accepted erase-disks verify-erase clean-boot-entries agent-shutdown power-off", 0},
		"clean with a cold cycle, though the agent is up": {Clean, func(f *PlanFacts) { f.AgentUp, f.Class.Clean.Memory = true, fleet.CleanColdCycle }, Request{},
			"bmc-identify power-off stay-off media-insert boot-from-media power-on await-agent inventory compare-class compare-accepted erase-disks verify-erase clean-boot-entries", 1},
		"deploy with the agent up":    {Deploy, up, Request{}, "inventory compare-class " + write, 1},
		"deploy without an agent":     {Deploy, nil, Request{}, boot + " inventory compare-class " + write, 2},
		"deploy that wipes data":      {Deploy, func(f *PlanFacts) { f.AgentUp, f.Lease.Request.WipeData = true, true }, Request{}, "inventory compare-class erase-disks verify-erase " + write, 1},
		"rebuild leaves data":         {Rebuild, func(f *PlanFacts) { f.AgentUp, f.Lease.Request.WipeData = true, true }, Request{}, "inventory compare-class " + write, 1},
		"rebuild":                     {Rebuild, nil, Request{}, boot + " inventory compare-class " + write, 2},
		"release":                     {Release, nil, Request{}, "isolate power-off", 0},
		"release with a medium in":    {Release, func(f *PlanFacts) { f.Node.Boot.MediaID = "m" }, Request{}, "isolate power-off media-eject", 0},
		"resume":                      {Resume, off, Request{}, "attach-tenant boot-from-disk power-on await-ready", 1},
		"resume of what is not known": {Resume, nil, Request{}, "attach-tenant power-off boot-from-disk power-on await-ready", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := plain()
			if c.facts != nil {
				c.facts(&f)
			}
			p, err := Compose(c.use, f, c.request)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(names(p), c.want); diff != "" {
				t.Errorf("steps (-got +want)\n%s", diff)
			}
			if p.Reboots != c.reboots {
				t.Errorf("reboots %d, want %d", p.Reboots, c.reboots)
			}
			destroys := c.use == Clean || c.use == Deploy || c.use == Rebuild
			if p.Destroys != destroys || destroys != (len(p.Erases) == 2) {
				t.Errorf("destroys %v, erases %v", p.Destroys, p.Erases)
			}
			for _, s := range p.Steps {
				if s.Why == "" {
					t.Errorf("%s does not say why", s.Name)
				}
			}
			again, err := Compose(c.use, f, c.request)
			if err != nil || again.Digest != p.Digest || !strings.HasPrefix(p.Digest, "sha256:") {
				t.Errorf("digest %q, then %q, %v", p.Digest, again.Digest, err)
			}
		})
	}
}

func TestComposeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		use   Use
		facts func(*PlanFacts)
		code  string
	}{
		"inspect of a machine that may run":     {Inspect, func(f *PlanFacts) { f.Power = "on" }, "MC-NODE-RUNNING"},
		"inspect where the BMC does not say":    {Inspect, nil, "MC-NODE-RUNNING"},
		"clean before any inventory":            {Clean, func(f *PlanFacts) { f.Node.Inventory = "" }, "MC-PLAN-INVENTORY"},
		"burn where the class wants none":       {Burn, nil, "MC-BURN-PROFILE"},
		"burn with a profile that is not there": {Burn, func(f *PlanFacts) { f.Class.BurnIn = "acceptance" }, "MC-BURN-PROFILE"},
		"burn without a class":                  {Burn, func(f *PlanFacts) { f.Class = fleet.Class{} }, "MC-NODE-CLASS"},
		"deploy without a lease":                {Deploy, func(f *PlanFacts) { f.Lease = nil }, "MC-PLAN-LEASE"},
		"deploy without an image":               {Deploy, func(f *PlanFacts) { f.Image = nil }, "MC-PLAN-LEASE"},
		"deploy without accepted devices":       {Deploy, func(f *PlanFacts) { f.Node.Accepted = nil }, "MC-PLAN-DEVICES"},
		"resume without a lease":                {Resume, func(f *PlanFacts) { f.Lease = nil }, "MC-PLAN-LEASE"},
		"a use that there is not":               {"dance", nil, "MC-PLAN-USE"},
		"parameters that the journal cannot take": {Deploy, func(f *PlanFacts) {
			f.Lease.Request.NetworkData = json.RawMessage(`"` + strings.Repeat("x", MaxParams) + `"`)
		}, "MC-PLAN-PARAMS"},
	} {
		t.Run(name, func(t *testing.T) {
			f := plain()
			if c.facts != nil {
				c.facts(&f)
			}
			p, err := Compose(c.use, f, Request{})
			if fleet.CodeOf(err) != c.code || fleet.HintOf(err) == "" && c.code != "MC-PLAN-LEASE" {
				t.Errorf("plan %q, error %v with code %q and hint %q, want %s", names(p), err, fleet.CodeOf(err), fleet.HintOf(err), c.code)
			}
		})
	}
}

// TestDigestChanges: whatever the plan would do differently changes its digest.
func TestDigestChanges(t *testing.T) {
	digest := func(use Use, change func(*PlanFacts)) string {
		f := plain()
		f.AgentUp = true
		lease, member, image := *f.Lease, *f.Member, *f.Image
		f.Lease, f.Member, f.Image = &lease, &member, &image
		if change != nil {
			change(&f)
		}
		p, err := Compose(use, f, Request{})
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest
	}
	seen := map[string]string{digest(Deploy, nil): "as it is", digest(Clean, nil): "clean"}
	for name, change := range map[string]func(*PlanFacts){
		"another device accepted": func(f *PlanFacts) { f.Node.Accepted = f.Node.Accepted[:1] },
		"another image":           func(f *PlanFacts) { f.Image.SHA256 = "e" },
		"another host name":       func(f *PlanFacts) { f.Member.Hostname = "other" },
		"other user-data":         func(f *PlanFacts) { f.Lease.UserData = "sha256:v" },
		"another key":             func(f *PlanFacts) { f.Lease.Request.SSHKeys = []string{"k"} },
		"another node":            func(f *PlanFacts) { f.Node.ID = "m" },
		"no agent":                func(f *PlanFacts) { f.AgentUp = false },
		"other root hints":        func(f *PlanFacts) { f.Node.RootDisk.Serial = "A" },
		"another readiness":       func(f *PlanFacts) { f.Lease.Request.Ready = fleet.ReadyNow },
	} {
		d := digest(Deploy, change)
		if other, ok := seen[d]; ok {
			t.Errorf("%q has the digest of %q", name, other)
		}
		seen[d] = name
	}
}

// TestCatalogue: every declaration is whole, and every step that a plan may have is one that Compose can put there.
func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Catalogue {
		switch {
		case seen[s.Name]:
			t.Errorf("%s is declared twice", s.Name)
		case s.Doc == "" || !strings.HasSuffix(s.Doc, ".") || s.Limit <= 0 || s.Tries < 1 || len(s.Uses) == 0:
			t.Errorf("%s is not declared whole", s.Name)
		case s.Side != InBand && s.Side != OutOfBand, s.OnCrash == "", s.Abort == "":
			t.Errorf("%s: side %q, crash %q, abort %q", s.Name, s.Side, s.OnCrash, s.Abort)
		case s.Destroys && slices.Contains(s.Uses, Inspect):
			t.Errorf("%s destroys data in an inspection", s.Name)
		}
		seen[s.Name] = true
	}
}

func TestStepsMarkdown(t *testing.T) {
	const file = "../../docs/steps.md"
	want := StepsMarkdown()
	if os.Getenv("METALCTL_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(got), want); diff != "" {
		t.Errorf("docs/steps.md is not what the catalogue says; run make generate\n%s", diff)
	}
}

func TestAFormatCountsOnlyWhereTheClassSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		class  fleet.Class
		accept bool
	}{
		"purge":                  {fleet.Class{Name: "c", BurnIn: "none", EraseLevel: "purge"}, false},
		"purge, a format counts": {fleet.Class{Name: "c", BurnIn: "none", EraseLevel: "purge", AcceptFormat: true}, true},
		"clear":                  {fleet.Class{Name: "c", BurnIn: "none", EraseLevel: "clear", AcceptFormat: true}, false},
	} {
		f := plain()
		f.AgentUp, f.Class = true, c.class
		p, err := Compose(Clean, f, Request{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range p.Steps {
			var got EraseParams
			if s.Name != EraseDisks && s.Name != VerifyErase {
				continue
			}
			if err := json.Unmarshal(s.Params, &got); err != nil || got.AcceptFormat != c.accept || got.Level != c.class.EraseLevel {
				t.Errorf("%s: %s gets %s, %v", name, s.Name, s.Params, err)
			}
		}
	}
}
