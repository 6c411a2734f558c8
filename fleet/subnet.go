package fleet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Subnet is a range of addresses in a network.
type Subnet struct {
	CIDR    string   `json:"cidr"`
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns,omitempty"`
	// Pool is the range that addresses are given of, FIRST-LAST; "" is all of it but the gateway. Reserved are addresses that are never given.
	Pool     string   `json:"pool,omitempty"`
	Reserved []string `json:"reserved,omitempty"`
}

// Range is the subnet's range of addresses.
func (s Subnet) Range() (netip.Prefix, error) { return netip.ParsePrefix(s.CIDR) }

// pool are the first and the last address that the subnet gives: those of Pool, or all but what names the range itself and, of IPv4, its broadcast.
func (s Subnet) pool() (first, last netip.Addr, err error) {
	p, err := s.Range()
	if err != nil {
		return first, last, err
	}
	if a, b, ok := strings.Cut(s.Pool, "-"); ok {
		if first, err = netip.ParseAddr(a); err == nil {
			last, err = netip.ParseAddr(b)
		}
		return first, last, err
	}
	first, last = p.Masked().Addr(), highest(p)
	if p.Bits() < p.Addr().BitLen()-1 { // RFC 3021 and RFC 6164: a range of two has neither
		first = first.Next()
		if p.Addr().Is4() {
			last = last.Prev()
		}
	}
	return first, last, nil
}

// highest is the last address of a range.
func highest(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (s Subnet) validate(at string, f *faults) netip.Prefix {
	p, err := netip.ParsePrefix(s.CIDR)
	f.check(err == nil && p == p.Masked(), at+".cidr", "is no range such as 10.20.0.0/24")
	if err != nil {
		return netip.Prefix{}
	}
	inside := func(field, text string) netip.Addr {
		a, err := netip.ParseAddr(text)
		f.check(err == nil && p.Contains(a), field, fmt.Sprintf("%q is no address of %s", text, p))
		return a
	}
	if s.Gateway != "" {
		inside(at+".gateway", s.Gateway)
	}
	for i, d := range s.DNS {
		_, err := netip.ParseAddr(d)
		f.check(err == nil, fmt.Sprintf("%s.dns[%d]", at, i), "is no address")
	}
	for i, r := range s.Reserved {
		inside(fmt.Sprintf("%s.reserved[%d]", at, i), r)
	}
	if s.Pool != "" {
		first, last, _ := strings.Cut(s.Pool, "-")
		a, b := inside(at+".pool", first), inside(at+".pool", last)
		f.check(!a.IsValid() || !b.IsValid() || a.Compare(b) <= 0, at+".pool", "is no FIRST-LAST in order")
	}
	return p
}

// Give is the lowest address of the subnet's pool that nobody has, with the length of its range.
func (s Subnet) Give(taken map[netip.Addr]bool) (netip.Prefix, error) {
	p, err := s.Range()
	if err != nil {
		return p, err
	}
	first, last, err := s.pool()
	if err != nil {
		return p, err
	}
	for a := first; a.IsValid() && a.Compare(last) <= 0; a = a.Next() {
		if taken[a] || sameAddress(s.Gateway, a) || slices.ContainsFunc(slices.Concat(s.Reserved, s.DNS), func(r string) bool { return sameAddress(r, a) }) {
			continue
		}
		return netip.PrefixFrom(a, p.Bits()), nil
	}
	return p, Errorf(Conflict, "MC-NET-ADDRESS", "no address of %s is free: nodes have all of its pool", s.CIDR)
}

func sameAddress(text string, a netip.Addr) bool {
	b, err := netip.ParseAddr(text)
	return err == nil && a == b
}

// Give gives one address of each of the network's subnets, and notes them as taken.
func (n Network) Give(taken map[netip.Addr]bool) ([]string, error) {
	var out []string
	for _, s := range n.Subnets {
		p, err := s.Give(taken)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		taken[p.Addr()] = true
		out = append(out, p.String())
	}
	return out, nil
}

// Of is the subnet that an address with the length of its range is of, or nil.
func (n Network) Of(address string) *Subnet {
	p, err := netip.ParsePrefix(address)
	if err != nil {
		return nil
	}
	for i, s := range n.Subnets {
		if r, err := s.Range(); err == nil && r == p.Masked() {
			return &n.Subnets[i]
		}
	}
	return nil
}

// GivenAddress is an address of a network that a lease's member has.
type GivenAddress struct {
	// Address is with the length of its range, such as 10.20.0.5/24.
	Address string  `json:"address"`
	Node    string  `json:"node"`
	Lease   LeaseID `json:"lease"`
}

// Given are the addresses of a network that members of the leases have, until their nodes are proven to have left.
func Given(leases []Lease, network string) []GivenAddress {
	var out []GivenAddress
	for _, l := range leases {
		if l.State.Over() || l.Request.Network != network {
			continue
		}
		for _, m := range l.Members {
			for _, a := range m.Addresses {
				if m.State != m.Gone() {
					out = append(out, GivenAddress{a, m.Name, l.ID})
				}
			}
		}
	}
	return out
}
