package inspect

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// raise brings up interfaces that are down, so that they have a carrier and hear their neighbours.
func (r *reading) raise(ctx context.Context, names []string) (restore func()) {
	return Raise(ctx, names, r.opts.Log, r.missing)
}

// Raise brings up interfaces that are down, so that they have a carrier, and returns what takes them down again. They get no addresses: IPv6 is switched off on
// them first. failed is told of those that could not be brought up.
func Raise(ctx context.Context, names []string, log *slog.Logger, failed func(what string, err error)) (restore func()) {
	var undo []func()
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if err != nil {
			failed("nic/"+name, err)
			continue
		}
		if link.Attrs().RawFlags&1 != 0 { // IFF_UP
			continue
		}
		conf := filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
		if old, err := os.ReadFile(conf); err == nil {
			if err := os.WriteFile(conf, []byte("1\n"), 0); err != nil {
				// Better unheard than with an address from a network that nobody configured.
				failed("nic/"+name+" lldp", err)
				continue
			}
			undo = append(undo, func() {
				if err := os.WriteFile(conf, old, 0); err != nil {
					log.WarnContext(ctx, "cannot restore IPv6 on an interface", "nic", name, "err", err)
				}
			})
		}
		if err := netlink.LinkSetUp(link); err != nil {
			failed("nic/"+name, err)
			continue
		}
		undo = append(undo, func() {
			if err := netlink.LinkSetDown(link); err != nil {
				log.WarnContext(ctx, "cannot take an interface down again", "nic", name, "err", err)
			}
		})
	}
	return func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
}
