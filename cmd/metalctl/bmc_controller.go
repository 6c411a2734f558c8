//go:build !ramdisk

package main

import (
	"context"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/vmedia"
	"github.com/metalctl/metalctl/redfish"
)

// bmcController shows a redfish.BMC as provision/vmedia wants it.
type bmcController struct {
	bmc *redfish.BMC
	// plain gives a medium's http address for the BMC, firmware the one for the host's own firmware; "" where there is none.
	plain, firmware func(string) string
	// learned records what an insertion found to work.
	learned func(context.Context, redfish.Learned)
	// witness is asked before each write; with mark it is also brought up to date.
	witness func(ctx context.Context, mark bool) error
}

func (c bmcController) Power(ctx context.Context) (string, error) {
	st, err := c.bmc.Power(ctx)
	return string(st), err
}

func (c bmcController) SetPower(ctx context.Context, action string) error {
	if err := c.witness(ctx, false); err != nil {
		return err
	}
	return c.bmc.SetPower(ctx, redfish.Action(action))
}

func (c bmcController) InsertMedia(ctx context.Context, url string, caPEM []byte) (vmedia.Inserted, error) {
	if err := c.witness(ctx, true); err != nil {
		return vmedia.Inserted{}, err
	}
	// Plain http is for BMCs and firmware that cannot do https with our certificates: the node's record then says that its boot path is unauthenticated.
	m, err := c.bmc.InsertMedia(ctx, redfish.MediaRequest{URL: url, CAPEM: caPEM, Plain: c.plain(url), Firmware: c.firmware(url)})
	if err == nil {
		c.learned(ctx, c.bmc.Learned())
	}
	return vmedia.Inserted{Method: string(m.Method), Slot: m.URI, Target: string(m.Target), Verified: m.CertificateVerified}, err
}

func (c bmcController) EjectMedia(ctx context.Context) error {
	if err := c.witness(ctx, false); err != nil {
		return err
	}
	return c.bmc.EjectMedia(ctx)
}

func (c bmcController) SetBootOnce(ctx context.Context, target, mode string) error {
	if err := c.witness(ctx, true); err != nil {
		return err
	}
	return c.bmc.SetBootOnce(ctx, redfish.Target(target), redfish.Mode(mode))
}

func (c bmcController) Identity(ctx context.Context) (vmedia.Machine, error) {
	id, err := c.bmc.Identity(ctx)
	return vmedia.Machine{Vendor: id.Vendor, Model: id.Model, Serial: id.Serial, UUID: id.UUID, Firmware: id.BIOSVersion, Power: string(id.PowerState)}, err
}

// saveLearned records the slot and the parameters that worked, so that the next insertion starts there; without the record it tries again.
func (b *bmcs) saveLearned(ctx context.Context, id fleet.NodeID, l redfish.Learned) {
	key := fleet.KeyOf(fleet.KindNode, id)
	for range 5 {
		var n fleet.Node
		var rev fleet.Revision
		err := b.store.View(ctx, func(s fleet.Snapshot) (err error) {
			n, rev, err = fleet.Get[fleet.Node](s, key)
			return err
		})
		if err != nil || n.BMC.MediaSlot == l.Slot && slices.Equal(n.BMC.MediaParameters, l.Parameters) {
			return
		}
		n.BMC.MediaSlot, n.BMC.MediaParameters = l.Slot, l.Parameters
		_, err = b.store.Commit(ctx, fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}, Writes: []fleet.Write{{Key: key, Value: n}}})
		if fleet.KindOf(err) != fleet.Conflict {
			return
		}
	}
}
