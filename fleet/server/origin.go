package server

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
)

// resolveLimit bounds how long names are looked up; a name without an address cannot be dialled either.
const resolveLimit = 5 * time.Second

// addressesOf are the addresses of a host: itself, or what its name resolves to.
func addressesOf(ctx context.Context, host string) []netip.Addr {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap().WithZone("")}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for i := range found {
		found[i] = found[i].Unmap().WithZone("")
	}
	return found
}

// bmcHosts say which node's BMC is behind a name or an address.
type bmcHosts struct {
	names     map[string]string
	addresses map[netip.Addr]string
}

func (s *Server) bmcHosts(ctx context.Context) (bmcHosts, error) {
	out := bmcHosts{map[string]string{}, map[netip.Addr]string{}}
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		return eachRecord(sn, fleet.KindNode, func(n fleet.Node, _ fleet.Revision) {
			if u, err := url.Parse(n.BMC.Address); err == nil {
				out.names[strings.ToLower(u.Hostname())] = n.Name
			}
		})
	})
	if err != nil {
		return out, err
	}
	var mu sync.Mutex // guards out.addresses
	var g errgroup.Group
	g.SetLimit(32)
	for host, node := range out.names {
		g.Go(func() error {
			found := addressesOf(ctx, host)
			mu.Lock()
			defer mu.Unlock()
			for _, a := range found {
				out.addresses[a] = node
			}
			return nil
		})
	}
	return out, g.Wait()
}

// node is whose BMC the host is, or "".
func (b bmcHosts) node(ctx context.Context, host string) string {
	if n := b.names[strings.ToLower(host)]; n != "" {
		return n
	}
	for _, a := range addressesOf(ctx, host) {
		if n := b.addresses[a]; n != "" {
			return n
		}
	}
	return ""
}

func errBMCOrigin(host, node string) error {
	return fleet.Errorf(fleet.Refused, "MC-IMAGE-ORIGIN", "images may not come from %s: that is the BMC of %s", host, node).
		WithHint("upload the image instead: metalctl image add NAME --file FILE")
}

// BMCRanges are the addresses of one node's BMC as ranges that images never come from.
func (s *Server) BMCRanges(ctx context.Context, bmc fleet.BMC) []string {
	u, err := url.Parse(bmc.Address)
	if err != nil {
		return nil
	}
	var out []string
	for _, a := range addressesOf(ctx, u.Hostname()) {
		out = append(out, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return out
}

// imageSite is the site, with the address of every enrolled BMC among what is denied.
func (s *Server) imageSite(ctx context.Context) (fleet.Site, error) {
	bmcs, err := s.bmcHosts(ctx)
	if err != nil {
		return fleet.Site{}, err
	}
	site, err := s.getSite(ctx, nil)
	if err != nil {
		return fleet.Site{}, err
	}
	out := site.Body
	for a := range bmcs.addresses {
		out.Denied = append(out.Denied, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return out, nil
}

// checkOrigin refuses an image's address by the rules that hold where it is fetched.
func (s *Server) checkOrigin(ctx context.Context, u *url.URL) error {
	bmcs, err := s.bmcHosts(ctx)
	if err != nil {
		return err
	}
	if node := bmcs.node(ctx, u.Hostname()); node != "" {
		return errBMCOrigin(u.Host, node)
	}
	site, err := s.getSite(ctx, nil)
	if err != nil {
		return err
	}
	return s.Images.CheckAddress(u, site.Body)
}
