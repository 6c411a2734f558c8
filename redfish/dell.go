package redfish

import (
	"context"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// dellVirtualCD selects the virtual CD for the next boot, or takes that back, by the iDRAC's own attributes: BootSourceOverrideTarget
// Cd starts the physical drive there (iDRAC-Redfish-Scripting#90). The attributes resource is used where there is one, else a
// system configuration import, which is a job. It reports false where the manager has neither.
func (b *BMC) dellVirtualCD(ctx context.Context, on bool) (bool, error) {
	s, err := b.look(ctx)
	if err != nil || len(s.managers) == 0 {
		return false, err
	}
	m, err := b.get(ctx, s.managers[0])
	if err != nil {
		return false, explain(err, "read the manager")
	}
	device, once := "Normal", "Disabled"
	if on {
		device, once = "VCD-DVD", "Enabled"
	}
	for _, uri := range m.links("Links", "Oem", "Dell", "DellAttributes") {
		if !strings.Contains(uri, "iDRAC.Embedded") {
			continue
		}
		return true, b.dellAttributes(ctx, uri, map[string]any{"ServerBoot.1.FirstBootDevice": device, "ServerBoot.1.BootOnce": once}, on)
	}
	target, _ := m.action("ImportSystemConfiguration")
	if target == "" {
		return false, nil
	}
	if !on {
		return true, nil // BootOnce has been used up, or the standard override is cleared by the caller
	}
	xml := `<SystemConfiguration><Component FQDD="` + lastSegment(m.uri) + `"><Attribute Name="ServerBoot.1#BootOnce">` + once +
		`</Attribute><Attribute Name="ServerBoot.1#FirstBootDevice">` + device + `</Attribute></Component></SystemConfiguration>`
	err = b.post(ctx, target, map[string]any{"ShareParameters": map[string]string{"Target": "ALL"}, "ImportBuffer": xml})
	return true, explain(err, "select the virtual CD")
}

func (b *BMC) dellAttributes(ctx context.Context, uri string, want map[string]any, needed bool) error {
	r, err := b.get(ctx, uri)
	if err != nil {
		return explain(err, "read the iDRAC attributes")
	}
	body := map[string]any{"Attributes": want}
	if same(body, r.obj, body) {
		return nil
	}
	if !needed && r.str("Attributes", "ServerBoot.1.FirstBootDevice") != "VCD-DVD" {
		return nil
	}
	if err := b.patch(ctx, uri, body); err != nil {
		return explain(err, "select the virtual CD")
	}
	over, err := b.until(ctx, b.settle(), time.Second, func() (bool, error) {
		now, err := b.get(ctx, uri)
		if err != nil {
			return false, err
		}
		return same(body, now.obj, body), nil
	})
	if err != nil {
		return err
	}
	if over {
		return fleet.Errorf(fleet.Broken, "MC-BMC-BOOT", "the iDRAC took the boot attributes but does not keep them")
	}
	return nil
}
