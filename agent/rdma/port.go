package rdma

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// port reads one port. States are without their numbers: "4: ACTIVE" is ACTIVE.
func (r *reading) port(h fleet.HCA, n int) fleet.HCAPort {
	dir := class + "/" + h.Name + "/ports/" + strconv.Itoa(n)
	what := "hca/" + h.Name + "/port/" + strconv.Itoa(n)
	p := fleet.HCAPort{Port: n, GUID: parseGUID(lastHalf(r.Try(dir, "gids/0")))}
	for _, f := range []struct {
		file string
		to   *string
	}{{"state", &p.State}, {"phys_state", &p.PhysicalState}, {"link_layer", &p.LinkLayer}} {
		text, err := r.Text(dir, f.file)
		if err != nil {
			r.missing(what+" "+f.file, err)
			continue
		}
		*f.to = word(text)
	}
	rate, err := r.Text(dir, "rate")
	if err == nil {
		p.RateGbps, err = parseRate(rate)
	}
	if err != nil {
		r.missing(what+" rate", err)
	}
	p.LID, p.SMLID = int(r.NumberOr(0, dir, "lid")), int(r.NumberOr(0, dir, "sm_lid"))
	p.Interfaces = r.interfaces(h.Name, n)
	if h.Role == fleet.HCAFabric {
		return p
	}
	if p.LinkLayer == "InfiniBand" {
		p.PKeys = r.pkeys(what, dir)
	}
	p.Counters = r.counters(what, dir)
	p.Module = r.module(what, p.Interfaces)
	return p
}

// word is what is behind the number of a state.
func word(s string) string {
	if _, rest, ok := strings.Cut(s, ": "); ok {
		return strings.TrimSpace(rest)
	}
	return s
}

// lastHalf is the interface part of a GID, which for the first one is the port's GUID (InfiniBand Architecture 1.4, section 4.1.1).
func lastHalf(gid string) string {
	if len(gid) != 39 {
		return ""
	}
	return gid[20:]
}

// parseRate reads "400 Gb/sec (4X NDR)" and "2.5 Gb/sec (1X SDR)".
func parseRate(s string) (float64, error) {
	number, rest, _ := strings.Cut(s, " ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !strings.HasPrefix(rest, "Gb/sec") || !(n >= 0 && n <= 1e5) {
		return 0, errors.New(strconv.Quote(s) + " is no rate")
	}
	return n, nil
}

// pkeys is the port's table without its empty entries, in its order.
func (r *reading) pkeys(what, dir string) []string {
	names, err := r.List(dir, "pkeys")
	if err != nil {
		r.missing(what+" pkeys", err)
	}
	slices.SortFunc(names, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, name := range names {
		key := strings.ToLower(r.Try(dir, "pkeys", name))
		if len(key) == 6 && key != "0x0000" {
			out = append(out, key)
		}
	}
	return out
}

// counters are the port's and the hardware's that are not zero. The kernel counts data in words of four bytes. lifespan is a setting among the hardware's
// counters: how many milliseconds they may be old.
func (r *reading) counters(what, dir string) map[string]int64 {
	var out map[string]int64
	for _, folder := range []string{"counters", "hw_counters"} {
		names, err := r.List(dir, folder)
		if err != nil {
			r.missing(what+" "+folder, err)
		}
		for _, name := range names {
			if name == "lifespan" {
				continue
			}
			n, err := r.Number(dir, folder, name)
			if err != nil {
				if !errors.Is(err, fs.ErrNotExist) {
					r.missing(what+" "+folder, err)
				}
				break // functions that a system keeps for itself refuse all of them, and log each refusal
			}
			if folder == "counters" && (name == "port_rcv_data" || name == "port_xmit_data") && n < 1<<61 {
				n *= 4
			}
			if n != 0 {
				if out == nil {
					out = map[string]int64{}
				}
				out[name] = n
			}
		}
	}
	return out
}

// interfaces are the network interfaces of a port: those of the function whose dev_port, from 0 on, is the port's.
func (r *reading) interfaces(name string, port int) []string {
	list, err := r.List(class, name, "device/net")
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range list {
		if int(r.NumberOr(0, class, name, "device/net", n, "dev_port"))+1 == port {
			out = append(out, n)
		}
	}
	return out
}
