package reconcile

import (
	"context"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// wires answers for both directions as long as no network driver is bound: with `isolation: none` the site said that there are no wires to move,
// and nothing else is claimed.
func (l *Loop) wires(ctx context.Context, c step.Call, what string) (step.Outcome, error) {
	v, err := l.look(ctx, c.Node)
	if err != nil {
		return step.Outcome{}, err
	}
	if !v.site.IsolationWaived() {
		return step.Outcome{}, fleet.Errorf(fleet.Refused, "MC-NET-NO-DRIVER", "the site requires isolation, and no network driver is bound that could %s", what).
			WithHint("bind a network driver, or say in the fleet file: kind: Site, isolation: none")
	}
	return step.Outcome{Evidence: map[string]any{"isolation": "none", "isolated": false,
		"note": "the site says isolation: none; no port was touched and nothing separates this node from others"}}, nil
}

func (l *Loop) attachTenant(ctx context.Context, c step.Call) (step.Outcome, error) {
	return l.wires(ctx, c, "attach the node's ports to the tenant's networks")
}

func (l *Loop) isolate(ctx context.Context, c step.Call) (step.Outcome, error) {
	return l.wires(ctx, c, "put the node's ports into quarantine")
}
