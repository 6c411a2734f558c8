package agent

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
)

// reporter hands records on and reports them to the server as lines.
type reporter struct {
	home *Home
	next slog.Handler
	with []func(slog.Handler) slog.Handler
}

func (r *reporter) Enabled(ctx context.Context, l slog.Level) bool { return r.next.Enabled(ctx, l) }

func (r *reporter) Handle(ctx context.Context, rec slog.Record) error {
	var b bytes.Buffer
	var text slog.Handler = slog.NewTextHandler(&b, nil)
	for _, w := range r.with {
		text = w(text)
	}
	err := text.Handle(ctx, rec)
	r.home.Report("log", strings.TrimRight(b.String(), "\n"))
	return errors.Join(err, r.next.Handle(ctx, rec))
}

func (r *reporter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return r.derive(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (r *reporter) WithGroup(name string) slog.Handler {
	return r.derive(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (r *reporter) derive(f func(slog.Handler) slog.Handler) slog.Handler {
	with := append(append([]func(slog.Handler) slog.Handler{}, r.with...), f)
	return &reporter{home: r.home, next: f(r.next), with: with}
}
