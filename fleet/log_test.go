package fleet

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
)

// A line carries what its context says, once, and what the line itself says counts more.
func TestLogHandler(t *testing.T) {
	step := WithLog(WithLog(context.Background(), slog.String(LogNode, "n1"), slog.String(LogStep, "a")), slog.String(LogStep, "b"))
	for name, c := range map[string]struct {
		do   func(*slog.Logger)
		want string
	}{
		"nothing to add":      {func(l *slog.Logger) { l.Info("m", "x", 1) }, "msg=m x=1\n"},
		"the newer counts":    {func(l *slog.Logger) { l.InfoContext(step, "m", "x", 1) }, "msg=m x=1 node=n1 step=b\n"},
		"the line counts":     {func(l *slog.Logger) { l.InfoContext(step, "m", LogNode, "n2") }, "msg=m node=n2 step=b\n"},
		"the logger counts":   {func(l *slog.Logger) { l.With(LogNode, "n3").InfoContext(step, "m") }, "msg=m node=n3 step=b\n"},
		"a level that is off": {func(l *slog.Logger) { l.DebugContext(step, "m") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			c.do(slog.New(LogHandler(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
					return slog.Attr{}
				}
				return a
			}}))))
			if got := b.String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
