package vmedia

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// bmc is a BMC in memory that writes down what it is told.
type bmc struct {
	power string
	// lies: power-off is accepted and nothing happens. goesOff: after so many readings the machine is off by itself.
	lies    bool
	goesOff int
	deaf    bool // a graceful shutdown fails
	fail    string
	machine Machine
	log     []string
	issued  int64
}

var errDown = errors.New("no answer")

func (b *bmc) do(what string) error {
	b.log = append(b.log, what)
	if b.fail != "" && strings.HasPrefix(what, b.fail) {
		return errDown
	}
	return nil
}

func (b *bmc) Power(context.Context) (string, error) {
	if b.goesOff > 0 {
		if b.goesOff--; b.goesOff == 0 {
			b.power = Off
		}
	}
	if b.fail == "read" {
		return "", errDown
	}
	return b.power, nil
}

func (b *bmc) SetPower(_ context.Context, action string) error {
	if err := b.do(action); err != nil {
		return err
	}
	if action == Graceful && b.deaf {
		return errDown
	}
	if !b.lies {
		b.power = map[string]string{On: On, ForceOff: Off, Graceful: Off}[action]
	}
	return nil
}

func (b *bmc) InsertMedia(_ context.Context, url string, ca []byte) (Inserted, error) {
	return Inserted{Method: "virtual-media", Slot: "CD1", Target: "Usb", Verified: len(ca) > 0}, b.do("insert " + url)
}
func (b *bmc) EjectMedia(context.Context) error { return b.do("eject") }
func (b *bmc) SetBootOnce(_ context.Context, target, mode string) error {
	return b.do("boot " + target + " " + mode)
}
func (b *bmc) Identity(context.Context) (Machine, error) { return b.machine, b.do("identity") }

func (b *bmc) Issue(context.Context, fleet.NodeID) (string, []byte, int64, error) {
	b.issued++
	return "https://s/secret-path.iso", []byte("CA"), b.issued, b.do("issue")
}
func (b *bmc) Expire(context.Context, fleet.NodeID) error { return b.do("expire") }

func (b *bmc) funcs() step.Funcs {
	limit := 50 * time.Millisecond
	if b.goesOff > 0 {
		limit = time.Hour // what is awaited comes
	}
	d := Driver{Medium: b, Poll: time.Millisecond, MaxWait: limit, Dial: func(context.Context, fleet.NodeID) (Controller, error) {
		return Controller{Power: b, Media: b, Boot: b, Identity: b}, b.do2("dial")
	}}
	return d.Funcs()
}

// do2 fails without writing down: every step dials.
func (b *bmc) do2(what string) error {
	if b.fail == what {
		return errDown
	}
	return nil
}

func TestSteps(t *testing.T) {
	const insert = "insert https://s/secret-path.iso"
	for name, c := range map[string]struct {
		step   string
		bmc    bmc
		params string
		call   step.Call
		log    []string
		shows  string
		code   string
		fails  bool
	}{
		"the enrolled machine":      {step: step.BMCIdentify, bmc: bmc{machine: Machine{Serial: "sn ", UUID: "ab"}}, params: `{"serial":"SN","uuid":"AB"}`, log: []string{"identity"}, shows: `"serial":"sn "`},
		"nothing is known of it":    {step: step.BMCIdentify, bmc: bmc{machine: Machine{Serial: "sn"}}, log: []string{"identity"}},
		"another serial number":     {step: step.BMCIdentify, bmc: bmc{machine: Machine{Serial: "x"}}, params: `{"serial":"SN"}`, log: []string{"identity"}, code: "MC-BMC-IDENTITY"},
		"another UUID":              {step: step.BMCIdentify, bmc: bmc{machine: Machine{Serial: "SN", UUID: "x"}}, params: `{"serial":"SN","uuid":"AB"}`, log: []string{"identity"}, code: "MC-BMC-IDENTITY"},
		"no serial number any more": {step: step.BMCIdentify, params: `{"serial":"SN"}`, log: []string{"identity"}, code: "MC-BMC-IDENTITY"},
		"parameters that are none":  {step: step.BMCIdentify, params: `[]`, fails: true},
		"no BMC":                    {step: step.MediaInsert, bmc: bmc{fail: "dial"}, fails: true},
		"insert":                    {step: step.MediaInsert, log: []string{"issue", insert}, shows: `"generation":1`},
		"insert anew":               {step: step.MediaInsert, params: `{"switch_off":true}`, bmc: bmc{power: On}, log: []string{ForceOff, "issue", insert}, shows: `"generation":1`},
		"insert anew, stays on":     {step: step.MediaInsert, params: `{"switch_off":true}`, bmc: bmc{power: On, fail: ForceOff}, log: []string{ForceOff}, fails: true},
		"insert, no medium":         {step: step.MediaInsert, bmc: bmc{fail: "issue"}, log: []string{"issue"}, fails: true},
		"insert refused":            {step: step.MediaInsert, bmc: bmc{fail: "insert"}, log: []string{"issue", insert}, fails: true},
		"boot from the CD":          {step: step.BootFromMedia, log: []string{"boot Cd UEFI"}},
		"boot from what was told":   {step: step.BootFromMedia, params: `{"target":"UefiHttp"}`, log: []string{"boot UefiHttp UEFI"}, shows: `"target":"UefiHttp"`},
		"boot from disk":            {step: step.BootFromDisk, log: []string{"boot None "}},
		"eject":                     {step: step.MediaEject, log: []string{"eject", "expire"}},
		"eject refused":             {step: step.MediaEject, bmc: bmc{fail: "eject"}, log: []string{"eject"}, fails: true},
		"on":                        {step: step.PowerOn, bmc: bmc{power: Off}, log: []string{"On"}, shows: `"after":"On"`},
		"on, and was on already":    {step: step.PowerOn, bmc: bmc{power: On}, code: "MC-NODE-RUNNING"},
		"on, maybe by ourselves":    {step: step.PowerOn, bmc: bmc{power: On}, call: step.Call{Resumed: true, Try: 1}, log: []string{"On"}},
		"on, by an earlier try":     {step: step.PowerOn, bmc: bmc{power: On}, call: step.Call{Try: 2}, log: []string{"On"}},
		"on, and the BMC lies":      {step: step.PowerOn, bmc: bmc{power: Off, lies: true}, log: []string{"On"}, code: "MC-BMC-POWER"},
		"on, power not known":       {step: step.PowerOn, bmc: bmc{fail: "read"}, fails: true},
		"off":                       {step: step.PowerOff, bmc: bmc{power: On}, log: []string{"ForceOff"}, shows: `"how":"forced"`},
		"off already":               {step: step.PowerOff, bmc: bmc{power: Off}, shows: `"how":"was off"`},
		"off by itself":             {step: step.PowerOff, bmc: bmc{power: On, goesOff: 3}, params: `{"wait_seconds":60}`, shows: `"how":"went off by itself"`},
		"not off by itself":         {step: step.PowerOff, bmc: bmc{power: On}, params: `{"wait_seconds":60}`, log: []string{"ForceOff"}, shows: `"how":"forced"`},
		"off in order":              {step: step.PowerOff, bmc: bmc{power: On}, params: `{"graceful":true}`, log: []string{"GracefulShutdown"}, shows: `"how":"the system shut down"`},
		"a system that is deaf":     {step: step.PowerOff, bmc: bmc{power: On, deaf: true}, params: `{"graceful":true}`, log: []string{"GracefulShutdown", "ForceOff"}, shows: `"how":"forced"`},
		"off, and the BMC lies":     {step: step.PowerOff, bmc: bmc{power: On, lies: true}, log: []string{"ForceOff"}, code: "MC-BMC-POWER"},
		"off refused":               {step: step.PowerOff, bmc: bmc{power: On, fail: "ForceOff"}, log: []string{"ForceOff"}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.call.Step = c.step
			if c.params != "" {
				c.call.Params = []byte(c.params)
			}
			r := c.bmc.funcs().Run(t.Context(), c.call)
			if diff := cmp.Diff(c.bmc.log, c.log); diff != "" {
				t.Errorf("what the BMC was told (-got +want)\n%s", diff)
			}
			switch {
			case c.code != "" || c.fails:
				if r.Problem == nil || c.code != "" && r.Problem.Code != c.code {
					t.Errorf("problem %+v, want %s", r.Problem, c.code)
				}
			case r.Problem != nil:
				t.Errorf("problem %+v", r.Problem)
			case !strings.Contains(string(r.Evidence), c.shows):
				t.Errorf("evidence %s, want %s", r.Evidence, c.shows)
			}
			if strings.Contains(string(r.Evidence), "secret-path") || r.Problem != nil && strings.Contains(r.Problem.Detail, "secret-path") {
				t.Errorf("the medium's address is in the journal: %s %+v", r.Evidence, r.Problem)
			}
		})
	}
}

// TestInsertTwice: doing it again begins another generation, so that whatever the first one started is refused.
func TestInsertTwice(t *testing.T) {
	b := &bmc{}
	f := b.funcs()
	first, second := f.Run(t.Context(), step.Call{Step: step.MediaInsert}), f.Run(t.Context(), step.Call{Step: step.MediaInsert, Resumed: true})
	if first.Problem != nil || second.Problem != nil || b.issued != 2 || string(first.Evidence) == string(second.Evidence) {
		t.Errorf("%s, then %s", first.Evidence, second.Evidence)
	}
}

// TestFuncsAreDeclared: every bound step is one of the catalogue's, on the server's side.
func TestFuncsAreDeclared(t *testing.T) {
	var names []string
	for name := range (&bmc{}).funcs() {
		if s, ok := step.Find(name); !ok || s.Side != step.OutOfBand {
			t.Errorf("%s is no out-of-band step", name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) != 8 {
		t.Errorf("bound are %v", names)
	}
}
