package redfish

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Capabilities is what a BMC can do for provisioning, and what would be used.
type Capabilities struct {
	// Method and Boots say what InsertMedia would use first: a slot's URI, or the system's for UefiHTTP; empty where nothing
	// fits. Why is the reason, in words.
	Method Method `json:"method,omitempty"`
	Boots  string `json:"boots,omitempty"`
	Why    string `json:"why"`
	// Schemes are what the chosen slot can fetch; nil: it does not say.
	Schemes []string `json:"schemes,omitempty"`
	// Slots are ranked, the best first.
	Slots []Slot `json:"slots"`
	// EnableMedia is the object whose OEM action may make slots appear; empty where there is none.
	EnableMedia  string    `json:"enable_media,omitempty"`
	BootTargets  []Target  `json:"boot_targets,omitempty"`
	BootModes    []Mode    `json:"boot_modes,omitempty"`
	HTTPBoot     bool      `json:"http_boot"`
	BootProgress bool      `json:"boot_progress"`
	ResetTypes   []string  `json:"reset_types,omitempty"`
	Licences     []Finding `json:"licences,omitempty"`
}

// Slot is one virtual media device and its rank.
type Slot struct {
	URI string `json:"uri"`
	// Unfit says why it is never used; empty for one that may be.
	Unfit string   `json:"unfit,omitempty"`
	Score int      `json:"score"`
	Why   []string `json:"why,omitempty"`
	// Insert is "action", "patch" or empty.
	Insert string `json:"insert,omitempty"`
	// Parameters are those that would be sent first.
	Parameters []string `json:"parameters,omitempty"`
	Schemes    []string `json:"schemes,omitempty"`
	MediaTypes []string `json:"media_types,omitempty"`
	Occupied   bool     `json:"occupied"`
	// Certificates: the slot can be given certificates for the image server.
	Certificates bool `json:"certificates"`
}

// Capabilities reads what the BMC can do; reads only.
func (b *BMC) Capabilities(ctx context.Context) (Capabilities, error) {
	slots, err := b.slots(ctx)
	if err != nil {
		return Capabilities{}, err
	}
	plan, err := b.bootPlan(ctx)
	if err != nil {
		return Capabilities{}, err
	}
	c := Capabilities{HTTPBoot: plan.canHTTP(), BootProgress: plan.system.has("BootProgress"), ResetTypes: cleanAll(b.resetTypes(ctx, plan.system))}
	state := plan.state()
	c.BootTargets, c.BootModes = state.Targets, state.Modes
	for _, s := range slots {
		c.Slots = append(c.Slots, b.slotReport(ctx, s))
	}
	if c.EnableMedia, err = b.canEnable(ctx); err != nil {
		return Capabilities{}, err
	}
	if c.Licences, err = b.licences(ctx); err != nil {
		return Capabilities{}, err
	}
	c.choose(plan.system.uri)
	return c, nil
}

func (c *Capabilities) choose(system string) {
	switch {
	case len(c.Slots) > 0 && c.Slots[0].Unfit == "":
		best := c.Slots[0]
		c.Method, c.Boots, c.Schemes = VirtualMedia, best.URI, best.Schemes
		c.Why = fmt.Sprintf("slot %s %s", lastSegment(best.URI), strings.Join(best.Why, ", "))
		if n := len(c.Slots) - 1; n > 0 {
			c.Why += fmt.Sprintf("; %d other slots rank below", n)
		}
	case c.EnableMedia != "":
		c.Method, c.Boots = VirtualMedia, c.EnableMedia
		c.Why = "there is no usable slot, but the vendor's action EnableRMedia may make one appear; it is run at the first insertion"
	case c.HTTPBoot:
		c.Method, c.Boots = UefiHTTP, system
		c.Why = "there is no usable slot, but the firmware boots from Boot.HttpBootUri"
	default:
		c.Why = "there is neither a usable virtual media slot nor HTTP boot from an address; only a network boot is left"
	}
}

func (b *BMC) slotReport(ctx context.Context, s *slot) Slot {
	out := Slot{URI: s.uri, Unfit: s.unfit, Score: s.score, Why: s.why}
	if s.res == nil {
		return out
	}
	out.MediaTypes, out.Occupied, out.Certificates = cleanAll(s.res.strs("MediaTypes")), s.occupied(b.profile().EmptyByConnection), s.res.link("Certificates") != ""
	if s.unfit != "" {
		return out
	}
	out.Insert = "patch"
	if s.insert != "" {
		out.Insert = "action"
	}
	info := b.actionInfo(ctx, s.action)
	out.Parameters, out.Schemes = b.firstShape(s, info), cleanAll(s.schemes(info, b.profile().Schemes))
	return out
}

func cleanAll(all []string) []string {
	out := slices.Clone(all)
	for i := range out {
		out[i] = clean(out[i])
	}
	return out
}

// Finding says of one feature which licence it needs and whether it is there.
type Finding struct {
	Feature string `json:"feature"`
	// Need is the licence's name; empty where none is known to be needed.
	Need string `json:"need,omitempty"`
	// State is "present", "missing" or "unknown".
	State string `json:"state"`
	// Have are the licences that the BMC names.
	Have []string `json:"have,omitempty"`
}

// licences compares the licences that the BMC names with what the vendor wants for virtual media.
func (b *BMC) licences(ctx context.Context) ([]Finding, error) {
	s, err := b.look(ctx)
	if err != nil {
		return nil, err
	}
	need := s.profile.Licence
	if need.Need == "" {
		return nil, nil
	}
	have, err := b.licenceNames(ctx, s)
	if err != nil {
		return nil, err
	}
	return []Finding{judgeLicence(need.Need, need.Enough, need.Lacking, have)}, nil
}

func judgeLicence(need string, enough, lacking, have []string) Finding {
	f := Finding{Feature: "virtual media", Need: need, State: "unknown", Have: have}
	all := strings.ToLower(strings.Join(have, "\n"))
	for _, l := range lacking {
		if strings.Contains(all, l) {
			f.State = "missing"
		}
	}
	for _, e := range enough {
		if strings.Contains(all, e) {
			f.State = "present"
		}
	}
	return f
}

// licenceNames reads the licence service (DSP0268 LicenseService) and the managers' own words. What may not be read is unknown.
func (b *BMC) licenceNames(ctx context.Context, s *survey) ([]string, error) {
	var names []string
	add := func(texts ...string) {
		for _, t := range texts {
			if t = clean(t); t != "" && !slices.Contains(names, t) && len(names) < 32 {
				names = append(names, t)
			}
		}
	}
	for _, uri := range s.managers {
		m, err := b.get(ctx, uri)
		if err != nil {
			return nil, explain(err, "read the manager")
		}
		for _, vendor := range []string{"Hpe", "Hp"} {
			add(m.str("Oem", vendor, "License", "LicenseString"), m.str("Oem", vendor, "License", "LicenseType"))
		}
	}
	service := b.service().licenseService
	if service == "" {
		return names, nil
	}
	r, err := b.get(ctx, service)
	if err != nil {
		return names, ctx.Err()
	}
	list := r.link("Licenses")
	if list == "" {
		return names, nil
	}
	uris, err := b.members(ctx, list)
	if err != nil {
		return names, ctx.Err()
	}
	for _, uri := range uris[:min(len(uris), 16)] {
		l, err := b.get(ctx, uri)
		if err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			continue
		}
		add(l.str("Name"), l.str("Description"), l.str("LicenseOrigin"), l.str("PartNumber"))
		add(l.strs("LicenseDescription")...)
	}
	return names, nil
}
