package fleet

import (
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Keeper is a record's value that can be kept decoded. Keep returns a pointer to a deep copy, equal to what decoding its JSON would give: times have no
// monotonic reading, and an empty list that JSON leaves out is nil.
type Keeper interface{ Keep() any }

// Kept is a record together with its decoded value. Both are shared with others: who wants to change the value changes what its Keep returns.
type Kept struct {
	Value    Keeper
	Data     json.RawMessage
	Revision Revision
}

// Shelf is a Snapshot that keeps values, so that what does not change is decoded once, and what was just written not at all.
type Shelf interface {
	// Kept returns the record at this snapshot, decoded by decode where nobody did before; an Error of kind NotFound where there is none.
	Kept(key Key, decode func(json.RawMessage) (Keeper, error)) (Kept, error)
}

// Feed is a Snapshot that knows what changed lately.
type Feed interface {
	// Since returns the keys of the records of a kind that were written or deleted after rev, up to this snapshot, each once or more; false where that is
	// too long ago to know.
	Since(kind string, rev Revision) ([]Key, bool)
}

// Keep implements Keeper.
func (n Node) Keep() any {
	n.Labels = keepMap(n.Labels)
	n.BMC.MediaParameters = keepList(n.BMC.MediaParameters)
	if n.BootNetwork != nil {
		n.BootNetwork = n.BootNetwork.keep()
	}
	n.Ports = keepList(n.Ports)
	for i := range n.Ports {
		n.Ports[i].Rail = keepPointer(n.Ports[i].Rail)
	}
	n.Faults = keepFaults(n.Faults)
	if n.Hold = keepPointer(n.Hold); n.Hold != nil {
		wall(&n.Hold.Since)
	}
	n.Accepted = keepList(n.Accepted)
	n.Boot.Stages = keepList(n.Boot.Stages)
	if n.Wish = keepPointer(n.Wish); n.Wish != nil {
		wall(&n.Wish.At)
	}
	if n.Undo = keepPointer(n.Undo); n.Undo != nil {
		wall(&n.Undo.Since, &n.Undo.AgentUntil, &n.Undo.NotBefore)
	}
	if n.Doubt = keepPointer(n.Doubt); n.Doubt != nil {
		wall(&n.Doubt.Since)
	}
	n.Destroyed = keepList(n.Destroyed)
	n.Repairs = keepList(n.Repairs)
	for i := range n.Repairs {
		wall(&n.Repairs[i].At, &n.Repairs[i].SeenAt)
	}
	wall(&n.StateSince, &n.InventoryAt, &n.BurnedAt, &n.ProvenAt, &n.Boot.IssuedAt, &n.Boot.RegisteredAt, &n.CreatedAt)
	return &n
}

func (b BootNetwork) keep() *BootNetwork {
	if b.Bond = keepPointer(b.Bond); b.Bond != nil {
		b.Bond.Members = slices.Clone(b.Bond.Members)
	}
	b.Addresses, b.Routes, b.DNS = keepList(b.Addresses), keepList(b.Routes), keepList(b.DNS)
	return &b
}

// Keep implements Keeper.
func (o Operation) Keep() any {
	o.Steps = slices.Clone(o.Steps)
	for i := range o.Steps {
		r := &o.Steps[i]
		// Nobody changes the bytes of raw JSON: they are replaced as a whole.
		r.Left = keepList(r.Left)
		wall(&r.StartedAt, &r.FinishedAt, &r.NotBefore)
		r.Error = r.Error.keep()
	}
	o.Error = o.Error.keep()
	wall(&o.CreatedAt, &o.StartedAt, &o.EndedAt)
	return &o
}

func (p *Problem) keep() *Problem {
	if p = keepPointer(p); p != nil {
		p.Faults = keepFaults(p.Faults)
	}
	return p
}

// Keep implements Keeper.
func (l Lease) Keep() any {
	r := &l.Request
	r.Nodes, r.SSHKeys, r.Meta = keepList(r.Nodes), keepList(r.SSHKeys), keepMap(r.Meta)
	l.Members = slices.Clone(l.Members)
	for i := range l.Members {
		wall(&l.Members[i].Since)
		l.Members[i].Addresses = keepList(l.Members[i].Addresses)
	}
	wall(&l.Since, &r.Until, &l.GraceEnds, &l.GraceOver, &l.WarnedAt, &l.CreatedAt)
	return &l
}

// Keep implements Keeper.
func (h HarmRecord) Keep() any {
	h.Done = slices.Clone(h.Done)
	for i := range h.Done {
		wall(&h.Done[i].At)
	}
	h.Folded = keepList(h.Folded)
	return &h
}

// Keep implements Keeper.
func (c Class) Keep() any {
	c.Packs, c.Clean.Variables.Ignore = keepList(c.Packs), keepList(c.Clean.Variables.Ignore)
	x := &c.Expect
	x.Topology.GPUNUMANodes, x.Limits = keepList(x.Topology.GPUNUMANodes), keepList(x.Limits)
	x.Firmware.HCA, x.Firmware.NVMe, x.Firmware.Board = keepMap(x.Firmware.HCA), keepMap(x.Firmware.NVMe), keepMap(x.Firmware.Board)
	return &c
}

// Keep implements Keeper.
func (s Site) Keep() any {
	s.Origins, s.Denied, s.PackKeys = keepList(s.Origins), keepList(s.Denied), keepList(s.PackKeys)
	s.Power.Budgets = keepList(s.Power.Budgets)
	return &s
}

// Keep implements Keeper.
func (i Image) Keep() any {
	wall(&i.CreatedAt)
	return &i
}

func keepFaults(f []Fault) []Fault {
	f = keepList(f)
	for i := range f {
		wall(&f[i].Since)
	}
	return f
}

func keepPointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func keepList[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

func keepMap[K comparable, V any](m map[K]V) map[K]V {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(m)
}

// wall takes the monotonic reading off times, which JSON does not carry either.
func wall(times ...*time.Time) {
	for _, t := range times {
		*t = t.Round(0)
	}
}
