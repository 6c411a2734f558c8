package redfish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish/quirk"
	"github.com/stmcginnis/gofish/schemas"
)

// Target is where a host boots from.
type Target string

const (
	None     Target = "None"
	Cd       Target = "Cd" // the virtual CD, by whatever name the vendor has for it
	Hdd      Target = "Hdd"
	Pxe      Target = "Pxe"
	UefiHttp Target = "UefiHttp" // with the address that InsertMedia gave, or the one from DHCP
)

// Mode is the firmware's boot mode.
type Mode string

const (
	// KeepMode leaves the mode as it is.
	KeepMode   Mode = ""
	UEFI       Mode = "UEFI"
	LegacyBIOS Mode = "Legacy"
)

// BootState is the boot override as read from the BMC.
type BootState struct {
	// Enabled is Disabled, Once or Continuous; empty where the BMC has no override.
	Enabled string `json:"enabled"`
	Target  Target `json:"target"`
	Mode    Mode   `json:"mode,omitempty"`
	HTTPURI string `json:"-"`
	// Pending says that the values stand in a settings resource and act at the next boot.
	Pending bool `json:"pending,omitempty"`
	// Targets and Modes are what may be set; empty where the BMC does not tell.
	Targets []Target `json:"targets,omitempty"`
	Modes   []Mode   `json:"modes,omitempty"`
}

// bootPlan is both places of a boot override: the system, and its settings resource where there is one.
type bootPlan struct {
	system   *resource
	settings *resource // or nil
}

// bootPlan reads the host and its settings resource: the linked one, or where the vendor is known to have one. Several BMCs list
// what they allow only there (iDRAC10), or take changes only there (AMI, Fujitsu).
func (b *BMC) bootPlan(ctx context.Context) (*bootPlan, error) {
	r, err := b.host(ctx)
	if err != nil {
		return nil, err
	}
	plan := &bootPlan{system: r}
	uri := r.link("@Redfish.Settings", "SettingsObject")
	if uri == "" {
		if name := b.profile().BootSettings; name != "" {
			uri = strings.TrimSuffix(r.uri, "/") + "/" + name
		}
	}
	if uri == "" || uri == r.uri {
		return plan, nil
	}
	s, err := b.get(ctx, uri)
	switch code := statusOf(err); {
	case err == nil:
		if s.has("Boot") {
			plan.settings = s
		}
	case code >= 400 && code < 500:
		b.log().DebugContext(ctx, "the boot settings resource cannot be read", "uri", uri, "err", err)
	default:
		return nil, explain(err, "read the boot settings")
	}
	return plan, nil
}

// at is where a property of Boot is to be written: the settings resource where it has it, else the system.
func (p *bootPlan) at(property string) *resource {
	if p.settings != nil && (p.settings.has("Boot", property) || p.settings.has("Boot", property+"@Redfish.AllowableValues")) {
		return p.settings
	}
	return p.system
}

func (p *bootPlan) has(property string) bool {
	return p.at(property).has("Boot", property)
}

// allowed are the values that a property may take, from whichever resource lists them.
func (p *bootPlan) allowed(property string) []string {
	key := property + "@Redfish.AllowableValues"
	if p.settings != nil {
		if v := p.settings.strs("Boot", key); v != nil {
			return v
		}
	}
	return p.system.strs("Boot", key)
}

func (p *bootPlan) canHTTP() bool {
	return slices.Contains(p.allowed("BootSourceOverrideTarget"), string(UefiHttp)) && p.has("HttpBootUri")
}

func (p *bootPlan) httpURI() string { return p.at("HttpBootUri").str("Boot", "HttpBootUri") }

func bootStateOf(r *resource) BootState {
	return BootState{
		Enabled: clean(r.str("Boot", "BootSourceOverrideEnabled")), Target: Target(clean(r.str("Boot", "BootSourceOverrideTarget"))),
		Mode: Mode(clean(r.str("Boot", "BootSourceOverrideMode"))), HTTPURI: r.str("Boot", "HttpBootUri"),
	}
}

func (p *bootPlan) state() BootState {
	s := bootStateOf(p.system)
	if p.settings != nil {
		if pending := bootStateOf(p.settings); pending.Enabled != "" && pending.Enabled != s.Enabled && s.Enabled != "Once" && s.Enabled != "Continuous" {
			pending.Pending = true
			if pending.Mode == "" {
				pending.Mode = s.Mode
			}
			s = pending
		}
	}
	for _, t := range p.allowed("BootSourceOverrideTarget") {
		s.Targets = append(s.Targets, Target(clean(t)))
	}
	for _, m := range p.allowed("BootSourceOverrideMode") {
		s.Modes = append(s.Modes, Mode(clean(m)))
	}
	return s
}

// Boot reads the boot override.
func (b *BMC) Boot(ctx context.Context) (BootState, error) {
	plan, err := b.bootPlan(ctx)
	if err != nil {
		return BootState{}, err
	}
	return plan.state(), nil
}

// SetBootOnce makes the next boot, and only that, start from t in mode m, and reads it back; None removes an override. Cd means our
// image however the host gets it, so it is UefiHttp where InsertMedia had to give the image by address. A BMC that
// makes Once into Continuous is accepted with a warning, as nothing else can be had there; set None after the boot.
func (b *BMC) SetBootOnce(ctx context.Context, t Target, m Mode) error {
	release, err := b.writing(ctx)
	if err != nil {
		return err
	}
	defer release()
	return explain(b.setBootOnce(ctx, t, m), "set the boot target "+string(t))
}

func (b *BMC) setBootOnce(ctx context.Context, t Target, m Mode) error {
	plan, err := b.bootPlan(ctx)
	if err != nil {
		return err
	}
	p := b.profile()
	b.mu.Lock()
	mine := b.inserted
	b.mu.Unlock()
	if uri := plan.httpURI(); t == Cd && mine.slot == "" && uri != "" && (uri == mine.image || hasAnyPrefix(uri, b.opts.Ours)) {
		t = UefiHttp // our image is given by address, as no slot took it
	}
	if (t == Cd || t == None) && p.VirtualCD == quirk.DellServerBoot {
		done, err := b.dellVirtualCD(ctx, t == Cd)
		if err != nil || done && t == Cd {
			return err
		}
	}
	target, err := vendorTarget(t, p, plan.allowed("BootSourceOverrideTarget"))
	if err != nil {
		return err
	}
	enabled := string(schemas.OnceBootSourceOverrideEnabled)
	if t == None {
		enabled = string(schemas.DisabledBootSourceOverrideEnabled)
		if s := plan.state(); s.Enabled == "" || s.Enabled == enabled && (s.Target == None || s.Target == "") {
			return nil
		}
	}
	boot := map[string]any{"BootSourceOverrideTarget": target, "BootSourceOverrideEnabled": enabled}
	if mode, ok := bootMode(plan, m, p.FullBoot); ok {
		boot["BootSourceOverrideMode"] = mode
	}
	if t == UefiHttp && mine.slot == "" && mine.image != "" {
		boot["HttpBootUri"] = mine.image
	}
	if err := b.patchBoot(ctx, plan, boot); err != nil {
		return err
	}
	return b.readBackBoot(ctx, target, enabled, m)
}

// bootMode is the mode to send: the wanted one where it differs, or the present one where the vendor forgets what is not sent.
// HPE Gen9 has no such property.
func bootMode(plan *bootPlan, m Mode, full bool) (string, bool) {
	now := first(plan.at("BootSourceOverrideMode").str("Boot", "BootSourceOverrideMode"), plan.system.str("Boot", "BootSourceOverrideMode"))
	if !plan.has("BootSourceOverrideMode") && !plan.system.has("Boot", "BootSourceOverrideMode") {
		return "", false
	}
	switch {
	case m != KeepMode && (full || now != string(m)):
		return string(m), true
	case full && now != "":
		return now, true
	}
	return "", false
}

// vendorTarget is the BMC's own word for t.
func vendorTarget(t Target, p quirk.Profile, allowed []string) (string, error) {
	names := []string{string(t)}
	if t == Cd {
		if p.CdTargets != nil {
			names = p.CdTargets
		} else {
			names = []string{"Cd", "UsbCd", "Usb"}
		}
	}
	if len(allowed) == 0 {
		return names[0], nil
	}
	for _, n := range names {
		if slices.Contains(allowed, n) {
			return n, nil
		}
	}
	if t == None {
		return string(t), nil // often left out of the list, never refused
	}
	return "", fleet.Errorf(fleet.Refused, "MC-BMC-BOOT", "the BMC offers the boot targets %s, not %s", clean(strings.Join(allowed, ", ")), t).
		WithHint("metalctl bmc probe shows what the BMC can do")
}

// patchBoot writes each property where it belongs. Where the settings resource refuses a property the system is tried.
func (b *BMC) patchBoot(ctx context.Context, plan *bootPlan, boot map[string]any) error {
	parts := map[*resource]map[string]any{}
	for key, value := range boot {
		at := plan.at(key)
		if at != plan.at("BootSourceOverrideTarget") && strings.HasPrefix(key, "BootSource") {
			at = plan.at("BootSourceOverrideTarget") // they mean nothing apart
		}
		if parts[at] == nil {
			parts[at] = map[string]any{}
		}
		parts[at][key] = value
	}
	for _, at := range []*resource{plan.system, plan.settings} {
		if at == nil || parts[at] == nil {
			continue
		}
		err := b.patchBootAt(ctx, at, parts[at])
		if s := statusOf(err); at == plan.settings && (s == 400 || s == 404 || s == 405 || s == 501) {
			err = b.patchBootAt(ctx, plan.system, parts[at])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// patchBootAt waits out a host that is in POST (iLO), or between two states.
func (b *BMC) patchBootAt(ctx context.Context, at *resource, boot map[string]any) error {
	deadline := b.now().Add(max(b.profile().PostBusy, time.Minute))
	for {
		err := b.patch(ctx, at.uri, map[string]any{"Boot": boot})
		e := AsError(err)
		if e == nil || !e.Has("UnableToModifyDuringSystemPOST", "ResourceInUse") || !b.now().Before(deadline) {
			return err
		}
		if serr := b.sleep(ctx, 15*time.Second); serr != nil {
			return serr
		}
	}
}

// readBackBoot polls until the override shows, in the system or pending in its settings.
func (b *BMC) readBackBoot(ctx context.Context, target, enabled string, m Mode) error {
	var s BootState
	over, err := b.until(ctx, b.settle()+20*time.Second, time.Second, func() (bool, error) {
		plan, err := b.bootPlan(ctx)
		if err != nil {
			return false, err
		}
		for _, r := range []*resource{plan.system, plan.settings} {
			if r == nil {
				continue
			}
			s = bootStateOf(r)
			set := s.Enabled == enabled || enabled == "Once" && s.Enabled == "Continuous"
			right := string(s.Target) == target || enabled == "Disabled"
			if set && right && (m == KeepMode || s.Mode == "" || s.Mode == m) {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if over {
		return fleet.Errorf(fleet.Broken, "MC-BMC-BOOT", "the BMC took the boot override but does not keep it: wanted %s, reads %s",
			fmt.Sprint(enabled, " ", target, " ", m), fmt.Sprint(s.Enabled, " ", s.Target, " ", s.Mode)).
			WithHint("metalctl node timeline NODE shows the exchange")
	}
	if enabled == "Once" && s.Enabled == "Continuous" {
		b.log().WarnContext(ctx, "the BMC made a boot override for one boot into a lasting one", "target", target)
	}
	return nil
}
