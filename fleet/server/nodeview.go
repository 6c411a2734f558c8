package server

import (
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// eachRecord decodes every record of a kind, with its revision.
func eachRecord[T any](sn fleet.Snapshot, kind string, yield func(T, fleet.Revision)) error {
	var bad error
	err := sn.List(kind, func(r fleet.Record) bool {
		var v T
		if bad = decodeRecord(r, &v); bad != nil {
			return false
		}
		yield(v, r.Revision)
		return true
	})
	if bad != nil {
		return bad
	}
	return err
}

// lastState is how the node's newest plan run ended, or "".
func lastState(sn fleet.Snapshot, n *fleet.Node) (fleet.OperationState, error) {
	if n.Operation != "" || n.LastOperation == "" {
		return "", nil
	}
	op, _, err := fleet.Get[fleet.Operation](sn, fleet.KeyOf(fleet.KindOperation, n.LastOperation))
	if err != nil && fleet.KindOf(err) == fleet.NotFound {
		return "", nil // old operations are dropped
	}
	return op.State, err
}

// nodeView shows a node whose newest plan run ended as last says. What only the server needs of its boot record stays here.
func (s *Server) nodeView(n fleet.Node, rev fleet.Revision, site fleet.Site, last fleet.OperationState) api.Node {
	v := api.Node{Node: n, Revision: rev, Isolation: "unproven", Breaker: s.Credentials.Breaker(n.ID), Waits: s.waits(n.ID)}
	v.Boot.TokenHash, v.Boot.MediaID = "", ""
	v.Verbs = append(fleet.Takes(n.State), factVerbs(&n, last)...)
	switch {
	case site.IsolationWaived():
		v.Isolation = "none"
	case n.Isolated:
		v.Isolation = "proven"
	}
	v.Agent, v.AgentSeen = s.agentWord(&n)
	return v
}

// waits is safe before the engine runs.
func (s *Server) waits(id fleet.NodeID) string {
	if s.engine.Plans == nil {
		return ""
	}
	return s.engine.Plans.Waits(id)
}

// factVerbs are the verbs beyond the lifecycle that make sense now.
func factVerbs(n *fleet.Node, last fleet.OperationState) []fleet.Verb {
	out := []fleet.Verb{api.VerbHold, api.VerbProtect}
	if n.Hold != nil {
		out[0] = api.VerbUnhold
	}
	if n.Protected {
		out[1] = api.VerbUnprotect
	}
	if last == fleet.OperationFailed || last == fleet.OperationAborted {
		out = append(out, api.VerbRetry)
	}
	if len(n.Faults) > 0 {
		out = append(out, api.VerbClearFault)
	}
	if len(n.Faults) > 0 && n.Lease == "" && n.Inventory != "" { // a part that nobody complains of may be swapped, too
		out = append(out, api.VerbRepair)
	}
	return out
}

func checkLabels(f *faultList, labels map[string]string) {
	for k, v := range labels {
		keyOK, valueOK := fleet.ValidLabel(k, v)
		f.check(keyOK, "labels."+shortened(k), "is no label: letters, digits, . _ / -, at most 63")
		f.check(valueOK, "labels."+shortened(k), "has a value that is none: letters, digits, . _ : -, at most 63")
	}
}

// since parses a time parameter.
func sinceParam(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return t, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "since is not a time such as 2026-11-01T12:00:00Z")
	}
	return t, nil
}
