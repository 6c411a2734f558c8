package redfish

import (
	"context"
	"slices"
	"strings"
	"unique"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/redfish/quirk"
	"github.com/stmcginnis/gofish/schemas"
)

// survey is where things are on a BMC: which of its systems is the host, which managers serve it, and whose quirks it has.
// It is taken once; addresses do not move while a BMC is open.
type survey struct {
	host     string
	managers []string // the host's own first
	profile  quirk.Profile
}

// places is a survey as it is kept. All BMCs of one make share one value, so that none of ten thousand keeps its own.
type places struct {
	host, managers, profile string // managers one a line; the profile's name
}

func (p places) survey() *survey {
	s := &survey{host: p.host, managers: lines(p.managers)}
	s.profile, _ = quirk.Named(p.profile) // it stood in the table, or is generic
	return s
}

// surveyed returns what the survey found, and whether one was taken.
func (b *BMC) surveyed() (places, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.places == (unique.Handle[places]{}) {
		return places{}, false
	}
	return b.places.Value(), true
}

// look returns the survey, taking it at the first call.
func (b *BMC) look(ctx context.Context) (*survey, error) {
	if p, ok := b.surveyed(); ok {
		return p.survey(), nil
	}
	system, err := b.findHost(ctx)
	if err != nil {
		return nil, err
	}
	managers, err := b.findManagers(ctx, system)
	if err != nil {
		return nil, err
	}
	var uris []string
	for _, m := range managers {
		uris = append(uris, m.uri)
	}
	p := places{host: system.uri, managers: strings.Join(uris, "\n"), profile: b.recognise(system, managers).Name}
	b.mu.Lock()
	b.places = unique.Make(p)
	b.mu.Unlock()
	return p.survey(), nil
}

// findHost chooses the host among the systems. An HGX baseboard calls itself a ComputerSystem and claims to be on, but it can
// neither be reset nor told what to boot (DGX H100 and GH200 captures).
func (b *BMC) findHost(ctx context.Context) (*resource, error) {
	uris := []string{b.opts.System}
	if b.opts.System == "" {
		var err error
		if uris, err = b.members(ctx, first(b.service().systems, rootURI+"Systems")); err != nil {
			return nil, explain(err, "list systems")
		}
	}
	var hosts []*resource
	best := 1
	for _, uri := range uris {
		r, err := b.get(ctx, uri)
		if err != nil {
			if statusOf(err) == 404 && b.opts.System == "" {
				continue
			}
			return nil, explain(err, "read "+uri)
		}
		switch n := hostLikeness(r); {
		case n > best:
			best, hosts = n, []*resource{r}
		case n == best:
			hosts = append(hosts, r)
		}
	}
	switch len(hosts) {
	case 1:
		return hosts[0], nil
	case 0:
		return nil, fleet.Errorf(fleet.Broken, "MC-BMC-PROTOCOL", "none of the BMC's %d systems can be reset: it serves no host", len(uris)).
			WithHint("if this is a GPU board's own controller, give the address of the server's BMC")
	}
	var names []string
	for _, h := range hosts {
		names = append(names, h.uri)
	}
	return nil, fleet.Errorf(fleet.Conflict, "MC-BMC-IDENTITY", "the BMC serves several hosts: %s", strings.Join(names, ", ")).
		WithHint("name the one that is meant in the node's bmc.system")
}

// hostLikeness is 0 for what is no host; more is likelier.
func hostLikeness(r *resource) int {
	reset, _ := r.action("ComputerSystem.Reset")
	if reset == "" {
		return 0
	}
	n := 1
	if r.has("Boot", "BootSourceOverrideTarget") || r.has("Boot", "BootSourceOverrideEnabled") {
		n += 2
	}
	if t := r.str("SystemType"); t == "Physical" || t == "" {
		n++
	}
	return n
}

// findManagers returns the BMCs behind a system, its own first. Managers are known by URI, never by Id: the HGX controller's Id
// is "bmc" (DGX H100 capture). Some have no ManagedBy link (Huawei); then every manager of type BMC counts.
func (b *BMC) findManagers(ctx context.Context, system *resource) ([]*resource, error) {
	uris := system.links("Links", "ManagedBy")
	linked := len(uris) > 0
	if !linked {
		var err error
		if uris, err = b.members(ctx, first(b.service().managers, rootURI+"Managers")); err != nil {
			if statusOf(err) == 404 {
				return nil, nil
			}
			return nil, explain(err, "list managers")
		}
	}
	var all []*resource
	for _, uri := range uris {
		r, err := b.get(ctx, uri)
		if err != nil {
			if s := statusOf(err); s == 404 || s == 403 {
				continue
			}
			return nil, explain(err, "read "+uri)
		}
		if t := r.str("ManagerType"); !linked && len(uris) > 1 && t != "" && t != "BMC" {
			continue
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(x, y *resource) int { return foreign(x) - foreign(y) })
	return all, nil
}

// foreign is 1 for the controller of an HGX baseboard, which a host's own BMC proxies.
func foreign(r *resource) int {
	if strings.HasPrefix(lastSegment(r.uri), "HGX_") {
		return 1
	}
	return 0
}

func lastSegment(uri string) string {
	uri = strings.TrimSuffix(uri, "/")
	return uri[strings.LastIndexByte(uri, '/')+1:]
}

// recognise picks the quirks: the recorded ones, or those that the BMC's own words select.
func (b *BMC) recognise(system *resource, managers []*resource) quirk.Profile {
	cs := typed[schemas.ComputerSystem](system)
	root := b.service()
	f := quirk.ServiceRootFacts{
		Vendor: root.vendor, Product: root.product, Oem: lines(root.oem),
		SystemManufacturer: cs.Manufacturer, SystemModel: cs.Model,
	}
	if len(managers) > 0 {
		m := typed[schemas.Manager](managers[0])
		f.ManagerManufacturer, f.ManagerModel, f.Firmware = m.Manufacturer, m.Model, m.FirmwareVersion
	}
	found := quirk.Recognise(f)
	if b.opts.Quirk == "" {
		return found
	}
	p, ok := quirk.Named(b.opts.Quirk)
	if !ok || p.Name != found.Name {
		b.log().Warn("the BMC behaves as another profile than the recorded one", "recorded", b.opts.Quirk, "found", found.Name)
	}
	if !ok {
		return found
	}
	return p
}
