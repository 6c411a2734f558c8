package redfish

import (
	"maps"
	"slices"
	"strings"
	"unique"
)

// serviceRoot is what is ever asked of a service root. All BMCs of one make share one value, so that none of ten thousand keeps its own.
type serviceRoot struct {
	version, vendor, product                       string
	systems, managers, sessions                    string
	sessionService, accountService, licenseService string
	oem                                            string // the keys of the Oem object, one a line: whose it is tells the vendor
}

func rootOf(r *resource) unique.Handle[serviceRoot] {
	s := serviceRoot{
		version: r.str("RedfishVersion"), vendor: r.str("Vendor"), product: r.str("Product"),
		systems: r.link("Systems"), managers: r.link("Managers"), sessions: r.link("Links", "Sessions"),
		sessionService: r.link("SessionService"), accountService: r.link("AccountService"), licenseService: r.link("LicenseService"),
	}
	if oem, ok := r.at("Oem").(map[string]any); ok {
		s.oem = strings.Join(slices.Sorted(maps.Keys(oem)), "\n")
	}
	return unique.Make(s)
}

// rooted reports whether the service root could be read.
func (b *BMC) rooted() bool { return b.root != unique.Handle[serviceRoot]{} }

// service is the service root as far as it is known.
func (b *BMC) service() serviceRoot {
	if !b.rooted() {
		return serviceRoot{}
	}
	return b.root.Value()
}

// lines splits what stands one a line.
func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}
