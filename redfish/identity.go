package redfish

import (
	"context"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/stmcginnis/gofish/schemas"
)

// Identity is who answers at a BMC's address. All texts come from the BMC.
type Identity struct {
	Vendor string `json:"vendor"`
	Model  string `json:"model"`
	Serial string `json:"serial"`
	// UUID is the host system's, in lower case.
	UUID           string `json:"uuid"`
	SKU            string `json:"sku,omitempty"`
	BIOSVersion    string `json:"bios_version,omitempty"`
	BMCModel       string `json:"bmc_model,omitempty"`
	BMCFirmware    string `json:"bmc_firmware"`
	BMCUUID        string `json:"bmc_uuid,omitempty"`
	RedfishVersion string `json:"redfish_version"`
	ServiceVendor  string `json:"service_vendor,omitempty"`
	ServiceProduct string `json:"service_product,omitempty"`
	// System and Manager are the URIs of the host and of its BMC.
	System  string `json:"system"`
	Manager string `json:"manager,omitempty"`
	// Quirk is the profile's name in redfish/quirk, to be recorded.
	Quirk string `json:"quirk"`
	// Auth is "session" or "basic", to be recorded.
	Auth string `json:"auth"`
	// Pin is the key that the BMC showed, to be recorded with TrustFirstUse.
	Pin string `json:"pin"`
	// LockoutThreshold is after how many wrong passwords an account locks; 0: never, or unknown.
	LockoutThreshold int `json:"lockout_threshold"`
	// SessionTimeoutSeconds is after how long without a request a session ends; 0: unknown.
	SessionTimeoutSeconds int        `json:"session_timeout_seconds"`
	PowerState            PowerState `json:"power_state"`
}

// Identity reads who this is; reads only.
func (b *BMC) Identity(ctx context.Context) (Identity, error) {
	s, err := b.look(ctx)
	if err != nil {
		return Identity{}, err
	}
	r, err := b.get(ctx, s.host)
	if err != nil {
		return Identity{}, explain(err, "read the host system")
	}
	cs := typed[schemas.ComputerSystem](r)
	id := Identity{
		Vendor: clean(cs.Manufacturer), Model: clean(cs.Model), Serial: clean(cs.SerialNumber), SKU: clean(cs.SKU),
		UUID: strings.ToLower(clean(cs.UUID)), BIOSVersion: clean(cs.BiosVersion),
		RedfishVersion: clean(b.service().version), ServiceVendor: clean(b.service().vendor), ServiceProduct: clean(b.service().product),
		System: s.host, Quirk: s.profile.Name, Auth: b.Auth().String(), Pin: b.wire.single.trust.observed(),
		PowerState: powerState(r),
	}
	if len(s.managers) > 0 {
		id.Manager = s.managers[0]
		m, err := b.get(ctx, id.Manager)
		if err != nil {
			return Identity{}, explain(err, "read the manager")
		}
		mg := typed[schemas.Manager](m)
		id.BMCModel, id.BMCFirmware, id.BMCUUID = clean(mg.Model), clean(mg.FirmwareVersion), strings.ToLower(clean(mg.UUID))
	}
	if l := b.service().accountService; l != "" {
		if a, err := b.get(ctx, l); err == nil { // an Operator may not read it; unknown then
			id.LockoutThreshold = a.number("AccountLockoutThreshold")
		} else if ctx.Err() != nil {
			return Identity{}, err
		}
	}
	if l := b.service().sessionService; l != "" && b.Auth() == AuthSession {
		if a, err := b.get(ctx, l); err == nil {
			id.SessionTimeoutSeconds = int((time.Duration(a.number("SessionTimeout")) * time.Second).Seconds())
		} else if ctx.Err() != nil {
			return Identity{}, err
		}
	}
	return id, nil
}

func clean(s string) string { return strings.TrimSpace(printable(s, 200)) }

// Expect is what was recorded or written down about a node; empty fields are not compared.
type Expect struct{ Serial, UUID string }

// Check refuses another machine than the expected one with MC-BMC-IDENTITY.
func (id Identity) Check(e Expect) error {
	var fields []fleet.FieldError
	if e.Serial != "" && !strings.EqualFold(e.Serial, id.Serial) && !strings.EqualFold(e.Serial, id.SKU) {
		fields = append(fields, fleet.FieldError{Field: "expect.serial", Message: "is " + e.Serial + ", the BMC says " + id.Serial})
	}
	if e.UUID != "" && !strings.EqualFold(e.UUID, id.UUID) {
		fields = append(fields, fleet.FieldError{Field: "expect.uuid", Message: "is " + e.UUID + ", the BMC says " + id.UUID})
	}
	if fields == nil {
		return nil
	}
	err := fleet.Errorf(fleet.Conflict, "MC-BMC-IDENTITY", "another machine answers at this BMC address").
		WithHint("check the address; if the board was replaced: metalctl node forget NODE, then enrol it again")
	err.Fields = fields
	return err
}
