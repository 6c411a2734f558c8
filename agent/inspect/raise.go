package inspect

import (
	"context"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// raise brings up interfaces that are down, so that they have a carrier and hear their neighbours, and returns what takes them down again. They get no
// addresses: IPv6 is switched off on them first.
func (r *reading) raise(ctx context.Context, names []string) (restore func()) {
	var undo []func()
	for _, name := range names {
		link, err := netlink.LinkByName(name)
		if err != nil {
			r.missing("nic/"+name, err)
			continue
		}
		if link.Attrs().RawFlags&1 != 0 { // IFF_UP
			continue
		}
		conf := filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6")
		if old, err := os.ReadFile(conf); err == nil {
			if err := os.WriteFile(conf, []byte("1\n"), 0); err != nil {
				// Better unheard than with an address from a network that nobody configured.
				r.missing("nic/"+name+" lldp", err)
				continue
			}
			undo = append(undo, func() {
				if err := os.WriteFile(conf, old, 0); err != nil {
					r.opts.Log.WarnContext(ctx, "cannot restore IPv6 on an interface", "nic", name, "err", err)
				}
			})
		}
		if err := netlink.LinkSetUp(link); err != nil {
			r.missing("nic/"+name, err)
			continue
		}
		undo = append(undo, func() {
			if err := netlink.LinkSetDown(link); err != nil {
				r.opts.Log.WarnContext(ctx, "cannot take an interface down again", "nic", name, "err", err)
			}
		})
	}
	return func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
}
