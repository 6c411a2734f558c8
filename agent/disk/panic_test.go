package disk

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/images"
)

// isPanic reports whether err is a panic with its stack, which names where.
func isPanic(err error, where string) bool {
	var p *fleet.Panic
	return errors.As(err, &p) && strings.Contains(p.Stack, where)
}

func TestAPanicOfAWriterIsTheStepsError(t *testing.T) {
	whole := func(ctx context.Context, yield func(images.Extent) error) (images.Result, error) {
		for off := int64(0); off < 32<<20; off += 4 << 20 {
			if err := yield(images.Extent{Off: off, Len: 4 << 20, Data: AlignedBytes(4 << 20)}); err != nil {
				return images.Result{}, err
			}
		}
		return images.Result{DiskBytes: 32 << 20}, nil
	}
	short := func(ctx context.Context, yield func(images.Extent) error) (images.Result, error) {
		err := yield(images.Extent{Len: 8192, Data: AlignedBytes(4096)[:4096:4096]})
		return images.Result{DiskBytes: 8192}, err
	}
	for name, c := range map[string]struct {
		content Content
		options Options
		where   string
	}{
		"an extent that is shorter than it says": {short, Options{}, "write.go"},
		"the report of progress":                 {whole, Options{Progress: func(Progress) { panic("no such bar") }}, "panic_test.go"},
	} {
		t.Run(name, func(t *testing.T) {
			dev := dirtyDisk(t, 40<<20)
			if _, err := WriteImage(t.Context(), dev, c.content, c.options); !isPanic(err, c.where) {
				t.Fatalf("got %v", err)
			}
			if head := readAll(t, dev)[:headBytes]; !allZero(head) {
				t.Error("the disk may boot what was half written")
			}
		})
	}
}

func TestAPanicOfAReadIsTheReadersError(t *testing.T) {
	a := readAhead(t.Context(), nil, 0, 10<<20)
	defer a.stop()
	if _, _, err := a.next(); !isPanic(err, "io.go") {
		t.Errorf("got %v", err)
	}
}
