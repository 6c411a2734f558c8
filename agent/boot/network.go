package boot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/metalctl/metalctl/fleet"
)

// How long a card may take to appear, and to get a link and an address, when the caller's context sets no earlier end.
const (
	cardWait    = 60 * time.Second
	networkWait = 5 * time.Minute
)

// NetworkState is how the machine is connected at the time when Network returned.
type NetworkState struct {
	// Link is the interface in use, Others are further ones that have a carrier and were not used.
	Link   string
	Others []string
	MAC    string
	MTU    int
	// Addresses are the link's global addresses, IPv4 and IPv6.
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	DNS       []netip.Addr
	Search    []string
	// Proxy is the URL that the credential names, or "".
	Proxy string

	cfg   *fleet.BootNetwork
	log   *slog.Logger
	lease *lease
}

// Network brings the machine onto its network: as cfg says, or by DHCP on every card that has a carrier, where the first answer
// counts. It needs root, in the network namespace of the calling process. Its error has the code MC-BOOT-NETWORK and says
// for each card what was missing; what was set up until then stays, and calling again is fine. After it, Run keeps leases alive.
func Network(ctx context.Context, cfg *fleet.BootNetwork, log *slog.Logger) (*NetworkState, error) {
	if cfg == nil {
		cfg = &fleet.BootNetwork{}
	}
	if fields := cfg.Validate("network"); len(fields) > 0 {
		e := fleet.Errorf(fleet.Invalid, "MC-BOOT-NETWORK", "the boot network is not valid").WithHint("metalctl node show NODE -o yaml")
		e.Fields = fields
		return nil, e
	}
	ctx, cancel := context.WithTimeout(ctx, networkWait)
	defer cancel()
	tops, err := setLinks(ctx, cfg, log)
	if err != nil {
		return nil, notConnected(err)
	}
	s := &NetworkState{cfg: cfg, log: log, Proxy: cfg.Proxy}
	if len(cfg.Addresses) > 0 {
		err = s.static(ctx, tops)
	} else {
		err = s.dynamic(ctx, tops)
	}
	if err != nil {
		return nil, notConnected(err)
	}
	if err := s.read(tops); err != nil {
		return nil, notConnected(err)
	}
	return s, nil
}

func notConnected(err error) error {
	return fleet.Errorf(fleet.Unavailable, "MC-BOOT-NETWORK", "connect to the network: %w", err).
		WithHint("check the node's boot_network and the switch port: metalctl node show NODE")
}

// setLinks waits for the cards that cfg needs and carries out the plan for them.
func setLinks(ctx context.Context, cfg *fleet.BootNetwork, log *slog.Logger) (tops []string, err error) {
	var ops []op
	var found []nic
	wait, cancel := context.WithTimeout(ctx, cardWait)
	defer cancel()
	if poll(wait, linkPoll, func() bool {
		if found, err = listNICs(); err == nil {
			ops, tops, err = planLinks(cfg, found)
		}
		return !errors.Is(err, errAbsent)
	}) != nil || err != nil {
		return nil, fmt.Errorf("%w; this machine has %s", err, names(found))
	}
	for _, o := range ops {
		err := do(o)
		if err != nil && cfg.Interface == "" && cfg.Bond == nil {
			log.Warn("network card left out", "card", o.String(), "err", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
	}
	return tops, nil
}

func names(nics []nic) string {
	var out []string
	for _, n := range nics {
		out = append(out, n.name+" "+n.mac)
	}
	if len(out) == 0 {
		return "no network card"
	}
	return strings.Join(out, ", ")
}

// static uses the link that cfg describes; where it names none, the first that gets a carrier.
func (s *NetworkState) static(ctx context.Context, tops []string) error {
	err := poll(ctx, linkPoll, func() bool {
		i := slices.IndexFunc(tops, hasCarrier)
		if i >= 0 {
			s.Link = tops[i]
		}
		return i >= 0
	})
	if err != nil {
		return fmt.Errorf("no carrier on %s: %w", strings.Join(tops, ", "), err)
	}
	return setStatic(ctx, s.Link, s.cfg)
}

// dynamic tries all links at once; the first lease or routed address wins and the others stop.
func (s *NetworkState) dynamic(ctx context.Context, tops []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex // guards s and reasons
	reasons := map[string]error{}
	won := func(link string, l *lease) bool {
		mu.Lock()
		defer mu.Unlock()
		if s.Link != "" {
			return false
		}
		s.Link, s.lease = link, l
		cancel()
		return true
	}
	var g errgroup.Group
	for _, link := range tops {
		mu.Lock()
		if !hasCarrier(link) {
			reasons[link] = errNoCarrier
		}
		mu.Unlock()
		try := func(request func(context.Context, string, *lease) (*lease, error), level slog.Level) func() error {
			return func() error {
				if awaitCarrier(ctx, link) != nil {
					return nil
				}
				mu.Lock()
				if reasons[link] == errNoCarrier {
					delete(reasons, link)
				}
				mu.Unlock()
				for ctx.Err() == nil {
					var l *lease
					err := fleet.Catch(func() (err error) { l, err = request(ctx, link, nil); return err })
					logPanic(s.log, "asking for a lease", err)
					if err == nil {
						won(link, l)
						return nil
					}
					if ctx.Err() == nil {
						mu.Lock()
						if reasons[link] == nil || level > slog.LevelDebug {
							reasons[link] = err
						}
						mu.Unlock()
						s.log.Log(ctx, level, "no network lease yet", "link", link, "err", err)
					}
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
				return nil
			}
		}
		g.Go(try(request4, slog.LevelInfo))
		g.Go(try(request6, slog.LevelDebug)) // most networks have no DHCPv6, and then every card says so again and again
		// A router's advertisement gives an address without DHCP (RFC 4862); in a namespace there may be one from the start.
		g.Go(func() error {
			err := fleet.Catch(func() error {
				return poll(ctx, linkPoll, func() bool { a, err := addresses(link); return err == nil && len(a) > 0 && hasCarrier(link) })
			})
			if !logPanic(s.log, "waiting for an address", err) && err == nil {
				won(link, nil)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if s.Link == "" {
		var why []string
		for _, link := range tops {
			why = append(why, fmt.Sprintf("%s: %v", link, cmp.Or(reasons[link], errNoAnswer)))
		}
		return fmt.Errorf("no address: %s", strings.Join(why, "; "))
	}
	if s.lease == nil {
		link, err := netlink.LinkByName(s.Link)
		if err != nil {
			return fmt.Errorf("find link %s: %w", s.Link, err)
		}
		return setRoutes(link, s.cfg.Routes)
	}
	// The caller's context was canceled for the others only; applying a lease takes no time.
	return s.lease.apply(s.Link, s.cfg)
}

// Why a card has no address, where no server said more.
var (
	errNoCarrier = errors.New("no carrier")
	errNoAnswer  = errors.New("no answer")
)

// read fills in what the kernel now says.
func (s *NetworkState) read(tops []string) error {
	link, err := netlink.LinkByName(s.Link)
	if err != nil {
		return fmt.Errorf("find link %s: %w", s.Link, err)
	}
	s.MAC, s.MTU = link.Attrs().HardwareAddr.String(), link.Attrs().MTU
	if s.Addresses, err = addresses(s.Link); err != nil {
		return err
	}
	if s.lease != nil {
		// An IPv6 address is not listed until it is known to be unique.
		for _, p := range s.lease.prefixes {
			if !slices.Contains(s.Addresses, p) {
				s.Addresses = append(s.Addresses, p)
			}
		}
		s.DNS, s.Search = s.lease.dns, s.lease.search
	}
	if s.Gateways, err = gateways(s.Link); err != nil {
		return err
	}
	if len(s.cfg.DNS) > 0 {
		s.DNS = nil
		for _, text := range s.cfg.DNS {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("parse DNS server: %w", err)
			}
			s.DNS = append(s.DNS, a)
		}
	}
	for _, other := range tops {
		if other != s.Link && hasCarrier(other) {
			s.Others = append(s.Others, other)
		}
	}
	return nil
}

// Run keeps the lease alive until ctx ends, and asks once for one of the other IP version, which a network may offer as well. Without
// a lease it just waits.
func (s *NetworkState) Run(ctx context.Context) error {
	if s.lease == nil {
		<-ctx.Done()
		return nil
	}
	request, other := request4, request6
	if s.lease.six != nil {
		request, other = request6, request4
	}
	var g errgroup.Group
	g.Go(func() error {
		return Keep(ctx, s.log, "renewing the lease", func(ctx context.Context) error {
			s.lease.keep(ctx, s.Link, s.cfg, s.log, request)
			return nil
		})
	})
	g.Go(func() error { return Keep(ctx, s.log, "the second lease", s.second(other)) })
	err := g.Wait()
	<-ctx.Done()
	return err
}

// second asks once for a lease of the other IP version and keeps it.
func (s *NetworkState) second(other func(context.Context, string, *lease) (*lease, error)) func(context.Context) error {
	return func(ctx context.Context) error {
		l, err := other(ctx, s.Link, nil)
		if err == nil {
			err = l.apply(s.Link, s.cfg)
		}
		if err != nil {
			s.log.Debug("no second network lease", "link", s.Link, "err", err)
			return nil
		}
		s.log.Info("second network lease", "link", s.Link, "address", l.prefixes[0])
		l.keep(ctx, s.Link, s.cfg, s.log, other)
		return nil
	}
}

// WriteResolvConf writes the DNS servers for the resolver, whole or not at all. Only PID 1 calls it for /etc/resolv.conf: in a
// namespace that file is the host's.
func (s *NetworkState) WriteResolvConf(path string) error {
	var b strings.Builder
	if len(s.Search) > 0 {
		b.WriteString("search " + strings.Join(s.Search, " ") + "\n")
	}
	for _, a := range s.DNS {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	tmp := filepath.Join(filepath.Dir(path), ".resolv.conf.new")
	if err := os.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write DNS servers: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write DNS servers: %w", err)
	}
	return nil
}
