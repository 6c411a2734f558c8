package redfish

import (
	"context"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// TestBeforeEachWrite: a brake that is pulled stops every write before it is sent, at whatever point of whatever call, and reads go on; its error comes
// out as such, not as a failure of the BMC, and nothing is tried another way.
func TestBeforeEachWrite(t *testing.T) {
	frozen := fleet.Freeze{Reason: "smoke", Source: fleet.FrozenByPerson}.Refuse(fleet.Node{Name: "n1"}, "write to")
	calls := map[string]func(context.Context, *BMC) error{
		"power on": func(ctx context.Context, b *BMC) error { return b.SetPower(ctx, On) },
		"insert": func(ctx context.Context, b *BMC) error {
			_, err := b.InsertMedia(ctx, MediaRequest{URL: "https://10.0.0.1/boot/x/metalctl.iso"})
			return err
		},
		"boot once": func(ctx context.Context, b *BMC) error { return b.SetBootOnce(ctx, Cd, UEFI) },
	}
	for name, call := range calls {
		free := newFake(t)
		free.slot("/redfish/v1/Managers/BMC/VirtualMedia/CD", []any{"CD"})
		if err := call(t.Context(), free.dial()); err != nil {
			t.Fatalf("%s without a brake: %v", name, err)
		}
		total := len(free.writes())
		if total == 0 {
			t.Fatalf("%s writes nothing", name)
		}
		for pass := range total {
			f := newFake(t)
			f.slot("/redfish/v1/Managers/BMC/VirtualMedia/CD", []any{"CD"})
			asked, over := 0, 0
			b := f.dial(func(o *Options) {
				o.Before = func(context.Context) error {
					if asked++; asked > pass {
						return frozen
					}
					return nil
				}
				o.After = func() { over++ }
			})
			err := call(t.Context(), b)
			if !fleet.IsFrozen(err) || fleet.KindOf(err) != fleet.Refused {
				t.Errorf("%s, braked before write %d: %v", name, pass+1, err)
			}
			if got := f.writes(); len(got) != pass {
				t.Errorf("%s, braked before write %d: sent %q", name, pass+1, got)
			}
			if over != pass {
				t.Errorf("%s, braked before write %d: told of the end of %d", name, pass+1, over)
			}
			if _, err := b.Power(t.Context()); err != nil {
				t.Errorf("%s: reads go on: %v", name, err)
			}
		}
	}
}
