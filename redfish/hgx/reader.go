// Package hgx reads the GPU baseboard behind a BMC: its GPUs, NVLinks from both ends, firmware, sensors and roots of trust.
package hgx

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Limits of one look at a board. An HGX H100 takes some 440 reads where the service cannot expand collections; each is a handshake for a BMC.
const (
	maxRequests = 700
	maxPages    = 20
	maxMembers  = 300
	maxCached   = 2 << 20
	callLimit   = 20 * time.Second
)

// Service reads resources of one BMC. With the tag of a former read the body is nil where the resource has not changed.
type Service interface {
	Read(ctx context.Context, uri, tag string) (body []byte, now string, err error)
}

// Reader looks at the baseboard behind one BMC by reads alone, one after another; looks take turns. What seldom changes (firmware, roots of trust) it
// remembers by entity tags, up to 2 MiB. How a part does is read anew each time: services leave readings and the members of an expanded collection out of
// their tags.
type Reader struct {
	service Service
	now     func() time.Time

	mu     sync.Mutex // guards the rest, held for a whole look
	cache  map[string]kept
	cached int
	expand bool
	spent  int
	silent int // reads in a row that had no answer
}

type kept struct {
	tag  string
	body []byte
}

// New makes a reader; now is the clock.
func New(s Service, now func() time.Time) *Reader {
	return &Reader{service: s, now: now, cache: map[string]kept{}}
}

var (
	errBudget = errors.New("the reads that one look may take are spent")
	errSilent = errors.New("the BMC gave no answer three times in a row")
)

// Baseboard reads the board; nil where the BMC shows none. What could not be read is named in Missing, and the rest is returned: only a BMC that does not
// even tell its systems, or that refuses the credential, is an error. ctx bounds the whole, each read has 20 s.
func (r *Reader) Baseboard(ctx context.Context) (*fleet.Baseboard, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spent, r.silent = 0, 0
	root, err := r.get(ctx, "/redfish/v1")
	if err != nil {
		return nil, fmt.Errorf("look for a baseboard: %w", err)
	}
	r.expand = root.flag("ProtocolFeaturesSupported", "ExpandQuery", "NoLinks")
	system, processors, err := r.find(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("look for a baseboard: %w", err)
	}
	if system == nil {
		return nil, nil
	}
	w := &walk{Reader: r, board: &fleet.Baseboard{URI: system.link(), TakenAt: r.now().UTC(), Health: map[string]string{}}}
	w.gpus(ctx, system, processors)
	w.links(ctx, root)
	w.reports(ctx, root)
	w.firmware(ctx, root)
	w.retimers(ctx, root)
	w.roots(ctx, root)
	w.board.Requests = r.spent
	if w.fatal != nil && fleet.KindOf(w.fatal) == fleet.Denied {
		return nil, fmt.Errorf("read the baseboard: %w", w.fatal)
	}
	return w.board, nil
}

// find returns the system that is a baseboard, with its processors: one that cannot be reset as a host can, and that has GPUs.
func (r *Reader) find(ctx context.Context, root object) (object, []object, error) {
	at := root.link("Systems")
	if at == "" {
		return nil, nil, nil
	}
	systems, err := r.members(ctx, at)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range systems {
		if s.at("Actions", "#ComputerSystem.Reset") != nil || s.link("Processors") == "" {
			continue
		}
		ps, err := r.members(ctx, s.link("Processors"))
		if err != nil {
			return nil, nil, err
		}
		for _, p := range ps {
			if p.str("ProcessorType") == "GPU" {
				return s, ps, nil
			}
		}
	}
	return nil, nil, nil
}

// fetch reads one resource within the budget.
type fetch func(ctx context.Context, uri string) (object, error)

func (r *Reader) get(ctx context.Context, uri string) (object, error) {
	return r.read(ctx, uri, &kept{})
}

// known reads a resource only where it has changed since it was read last.
func (r *Reader) known(ctx context.Context, uri string) (object, error) {
	now := r.cache[uri]
	o, err := r.read(ctx, uri, &now)
	if err == nil {
		r.keep(uri, now)
	}
	return o, err
}

// read sends the tag of old, where there is one, and leaves what it got there.
func (r *Reader) read(ctx context.Context, uri string, old *kept) (object, error) {
	if r.spent >= maxRequests {
		return nil, errBudget
	}
	if r.silent >= 3 {
		return nil, errSilent
	}
	r.spent++
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	body, tag, err := r.service.Read(ctx, uri, old.tag)
	if err != nil {
		if k := fleet.KindOf(err); k == fleet.Unavailable || k == fleet.Timeout {
			r.silent++
		}
		return nil, err
	}
	r.silent = 0
	if body != nil || old.tag == "" {
		*old = kept{tag, body}
	}
	o, err := decode(old.body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", uri, err)
	}
	return o, nil
}

func (r *Reader) keep(uri string, k kept) {
	r.cached -= len(r.cache[uri].body)
	delete(r.cache, uri)
	if k.tag == "" || r.cached+len(k.body) > maxCached {
		return
	}
	r.cache[uri] = k
	r.cached += len(k.body)
}

// members reads a collection with its members, in one request a page where the service expands, else one by one.
func (r *Reader) members(ctx context.Context, uri string) ([]object, error) {
	return r.each(ctx, uri, r.get)
}

// each is members with a way to read one.
func (r *Reader) each(ctx context.Context, uri string, one fetch) ([]object, error) {
	links, out, err := r.collection(ctx, uri, r.expand)
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		o, err := one(ctx, l)
		if fleet.KindOf(err) == fleet.NotFound {
			continue // gone since the collection was read
		}
		if err != nil {
			return out, err
		}
		out = append(out, o)
	}
	return out, nil
}

// collection reads a collection: members that came along, where they are asked for, and links to the others.
func (r *Reader) collection(ctx context.Context, uri string, expand bool) (links []string, members []object, err error) {
	seen := map[string]bool{}
	for page := 0; uri != "" && page < maxPages && !seen[uri]; page++ {
		seen[uri] = true
		at := uri
		if expand && page == 0 && !strings.Contains(at, "?") {
			at += "?$expand=.($levels=1)"
		}
		c, err := r.get(ctx, at)
		if err != nil && at != uri && fleet.KindOf(err) == fleet.Broken {
			r.expand = false // it says that it can, and refuses
			c, err = r.get(ctx, uri)
		}
		if err != nil {
			return nil, nil, err
		}
		for _, m := range c.list("Members") {
			if len(links)+len(members) == maxMembers {
				return links, members, fmt.Errorf("collection %s has more than %d members", uri, maxMembers)
			}
			if o := object(m); len(o) > 1 {
				members = append(members, o)
			} else if l := o.link(); l != "" {
				links = append(links, l)
			}
		}
		uri = c.str("Members@odata.nextLink")
	}
	return links, members, nil
}

// walk is one look: it fills the board and notes what could not be read.
type walk struct {
	*Reader
	board *fleet.Baseboard
	ports map[string]fleet.BoardPort // by URI
	peers map[string]string          // URI of the other end, by URI
	order []string
	// switches tells that every port of every switch was read: only then does an end that is not there mean something.
	switches bool
	fatal    error
}

// missing notes what could not be read. What has the same reason stands together, as a BMC that falls silent takes all the rest along.
func (w *walk) missing(what string, err error) {
	if err == nil {
		return
	}
	if fleet.KindOf(err) == fleet.Denied {
		w.fatal = err
	}
	if n := len(w.board.Missing); n > 0 && w.board.Missing[n-1].Why == err.Error() {
		if last := &w.board.Missing[n-1]; len(last.What) < 200 {
			last.What += ", " + what
		}
		return
	}
	w.board.Missing = append(w.board.Missing, fleet.Missing{What: what, Why: err.Error()})
}

// part is the last segment of an address, which names a part.
func part(uri string) string { return path.Base(strings.TrimRight(uri, "/")) }
