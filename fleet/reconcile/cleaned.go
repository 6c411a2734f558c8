package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/cleaning"
)

// cleaned names the record that was made of a plan run; zero where there is none.
type cleaned struct {
	op     fleet.OperationID
	digest string
}

// endPlan ends a plan run. What a cleaning did is recorded first: where that cannot be kept, the run does not end, and the node is not clean.
func (l *Loop) endPlan(ctx context.Context, id fleet.NodeID, m Move, v *view) error {
	rec, err := l.record(ctx, m, v)
	if err != nil {
		return err
	}
	return l.again(ctx, id, m.Kind, v, func(v *view, m Move) error {
		v.cleaned = rec
		switch m.Kind {
		case Fail:
			return l.fail(v, m)
		case Stop:
			return l.stop(v, m)
		}
		return l.complete(v)
	})
}

// maxAttachment bounds what is read of a step's attachment.
const maxAttachment = 8 << 20

// record composes and keeps the record of a cleaning that ends with that move; none, where the run is no cleaning or never began to clean.
func (l *Loop) record(ctx context.Context, m Move, v *view) (cleaned, error) {
	if v.op.v == nil || !cleaning.Began(*v.op.v) {
		return cleaned{}, nil
	}
	t := cleaning.Traces{Node: *v.node.v, Operation: *v.op.v, Class: v.class, Attachments: map[string]json.RawMessage{}, Now: v.now}
	switch m.Kind {
	case Stop:
		t.Why = "aborted"
	case Fail:
		t.Why = m.Why
	}
	var err error
	if t.Inventory, err = l.inventory(ctx, v.node.v); err != nil {
		if ctx.Err() != nil {
			return cleaned{}, ctx.Err()
		}
		t.Unread = err.Error()
	}
	for _, r := range v.op.v.Steps {
		var seen struct {
			Blob string `json:"blob"`
		}
		if len(r.Evidence) == 0 || json.Unmarshal(r.Evidence, &seen) != nil || seen.Blob == "" {
			continue
		}
		b, err := l.attachment(ctx, seen.Blob)
		if ctx.Err() != nil {
			return cleaned{}, ctx.Err()
		}
		if err == nil { // else the record says what the journal alone shows
			t.Attachments[seen.Blob] = b
		}
	}
	b, err := json.Marshal(cleaning.Compose(t))
	if err != nil {
		return cleaned{}, fmt.Errorf("encode the cleaning record: %w", err)
	}
	digest, err := l.Blobs.PutBlob(ctx, "cleaning", bytes.NewReader(b))
	return cleaned{v.op.v.ID, digest}, err
}

func (l *Loop) attachment(ctx context.Context, digest string) ([]byte, error) {
	f, err := l.Blobs.OpenBlob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxAttachment))
}

// recorded enters the record of the operation that ends: it is the node's newest, and the newest of the lease whose data the node held.
func (v *view) recorded() {
	if v.cleaned.digest == "" || v.cleaned.op != v.op.v.ID {
		return
	}
	v.node.v.Cleaning = v.cleaned.digest
	owner := v.owner.v
	if owner == nil {
		return
	}
	for i := range owner.Members {
		if m := &owner.Members[i]; m.Node == v.node.v.ID {
			m.Cleaning = v.cleaned.digest
		}
	}
}
