package fleet

import (
	"context"
	"log/slog"
	"slices"
)

// Keys of what log lines carry about whom they concern. All keys are in LogKeys.
const (
	LogNode      = "node"
	LogNodes     = "nodes"
	LogOperation = "operation"
	LogStep      = "step"
	LogTry       = "try"
	LogLease     = "lease"
	LogFabric    = "fabric"
)

// LogKey is one key that log lines may carry.
type LogKey struct{ Key, Is string }

// LogKeys are all keys that server and agent use in their logs, by what they are about. A test compares them with the code and with the documentation.
func LogKeys() []LogKey {
	return []LogKey{
		{LogNode, "the node's name; its id while an agent has not registered, and for a node that is gone"},
		{LogNodes, "names of several nodes, joined by commas, ten at most"},
		{LogOperation, "the operation's id, which is one run of a plan"},
		{LogStep, "the step's name, as in steps.md"},
		{LogTry, "which try of the step this is, from 1"},
		{LogLease, "the lease's id"},
		{LogFabric, "the name of an InfiniBand fabric"},
		{"bmc", "host and port of the BMC"},
		{"generation", "the node's boot generation"},
		{"type", "the type of the event that the line tells of, as in `metalctl events`"},
		{"text", "that event's text, or what was found"},
		{"err", "what went wrong"},
		{"code", "its code: metalctl help CODE"},
		{"took", "how long the step took"},
		{"by", "who asked; for a clock, how far it was set"},
		{"why", "the reason that was given or found"},
		{"reason", "the reason that a person gave"},
		{"what", "what a freeze covers; which part of an agent had a defect"},
		{"approval", "the id of a request for approval"},
		{"act", "the kind of harm that needs approval"},
		{"method", "the method of a request"},
		{"path", "the path of a request, of a file or of a folder"},
		{"panic", "the value of a panic"},
		{"stack", "where the panic was"},
		{"remote", "the address that a request came from"},
		{"server", "the URL of the server that an agent talks to"},
		{"url", "where the server is reached"},
		{"peer", "the URL of the other one of two servers, or of their arbiter"},
		{"term", "the number of the term that an arbiter has lent"},
		{"since_boot", "seconds since the machine was booted, by the clock that nobody sets, when the right to act came or ended"},
		{"listen", "where the server listens"},
		{"uri", "a resource of a BMC"},
		{"target", "a boot override's target"},
		{"recorded", "the vendor's profile in the node's record"},
		{"found", "the vendor's profile that the BMC behaves as; the clock that was found"},
		{"ramdisk", "the name of a boot medium"},
		{"booted_now", "the ramdisk that nodes boot now"},
		{"version", "the version of the agent's protocol"},
		{"sha256", "the digest of an image's or a pack's file"},
		{"name", "the name of a backup"},
		{"file", "a file in the server's data folder"},
		{"revision", "a revision of the store"},
		{"bytes", "a size"},
		{"seconds", "how long something took"},
		{"count", "how many"},
		{"settled", "how many nodes a witness vouched for"},
		{"held", "how many nodes stay held for want of a witness"},
		{"dropped", "how many entries of timelines were lost"},
		{"waiting", "how many lines wait for a witness"},
		{"witness", "a log outside of the store"},
		{"testimony", "what the witness says of the store"},
		{"from", "the schema, or the time, before"},
		{"to", "the schema, or the time, after"},
		{"backup", "the backup that was made before"},
		{"kernel", "the release of a kernel"},
		{"link", "a network interface"},
		{"nic", "a network interface"},
		{"card", "what was tried with a network card"},
		{"address", "an address of the machine"},
		{"addresses", "addresses of the machine"},
		{"module", "a kernel module"},
		{"modules", "kernel modules"},
		{"pass", "which pass over the machine's devices"},
		{"device", "a device of the machine"},
		{"console", "a console of the machine"},
		{"signal", "a signal to PID 1"},
		{"time", "the time that a clock was set to"},
		{"part", "a part of the inventory"},
		{"last", "the time that a server saw last before this one started"},
	}
}

type logContext struct{}

// WithLog returns a context whose log lines carry these attributes, besides those that ctx has already. See LogHandler.
func WithLog(ctx context.Context, attrs ...slog.Attr) context.Context {
	before, _ := ctx.Value(logContext{}).([]slog.Attr)
	return context.WithValue(ctx, logContext{}, append(slices.Clip(before), attrs...))
}

// LogHandler gives each record the attributes of its context that it does not have by itself; of two with one key the newer counts.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next: next} }

type logHandler struct {
	next slog.Handler
	has  []string // keys that next adds by itself
}

func (h logHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	attrs, _ := ctx.Value(logContext{}).([]slog.Attr)
	if len(attrs) == 0 {
		return h.next.Handle(ctx, r)
	}
	has := slices.Clone(h.has)
	r.Attrs(func(a slog.Attr) bool { has = append(has, a.Key); return true })
	r = r.Clone()
	for i, a := range attrs {
		newer := slices.ContainsFunc(attrs[i+1:], func(b slog.Attr) bool { return b.Key == a.Key })
		if !newer && !slices.Contains(has, a.Key) {
			r.AddAttrs(a)
		}
	}
	return h.next.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	has := slices.Clone(h.has)
	for _, a := range attrs {
		has = append(has, a.Key)
	}
	return logHandler{next: h.next.WithAttrs(attrs), has: has}
}

func (h logHandler) WithGroup(name string) slog.Handler {
	return logHandler{next: h.next.WithGroup(name), has: h.has}
}
