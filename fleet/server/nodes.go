package server

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

func (r *routes) nodes() {
	s := r.s
	route(r, http.MethodGet, "/nodes", "list-nodes", "List nodes", http.StatusOK, s.listNodes)
	route(r, http.MethodPost, "/nodes", "create-node", "Enrol a node; its BMC is opened with reads only", http.StatusCreated, s.createNode)
	route(r, http.MethodGet, "/nodes/{id}", "get-node", "Read a node", http.StatusOK, s.getNode)
	route(r, http.MethodPatch, "/nodes/{id}", "patch-node", "Change settings of a node; for another address or trust its BMC is opened with reads only", http.StatusOK, s.patchNode)
	route(r, http.MethodDelete, "/nodes/{id}", "forget-node", "Forget a node; nothing is touched", http.StatusNoContent, s.forgetNode)
	route(r, http.MethodPost, "/nodes/{id}/{verb}", "node-verb", "Ask a verb of the lifecycle table, or hold, unhold, protect, unprotect, retry, clear-fault", http.StatusAccepted, s.nodeVerb)
}

type listNodesIn struct {
	Paging
	State    string `query:"state" maxLength:"50" doc:"only nodes in this state"`
	Class    string `query:"class" maxLength:"100" doc:"only nodes of this class"`
	Selector string `query:"selector" maxLength:"1000" doc:"labels: key=value, key!=value, key, !key, with commas between"`
	Sort     string `query:"sort" maxLength:"20" doc:"name, state, class or created; - before it turns the order round"`
}

func (s *Server) listNodes(ctx context.Context, in *listNodesIn) (*plain[api.List[api.Node]], error) {
	key, desc, err := sortOrder(in.Sort, "name", "state", "class", "created")
	if err != nil {
		return nil, err
	}
	want, err := fleet.ParseSelector(in.Selector)
	if err != nil {
		return nil, err
	}
	if in.State != "" && !slices.Contains(fleet.States(), fleet.State(in.State)) {
		return nil, fleet.Errorf(fleet.Invalid, "MC-API-INVALID", "there is no state %q", in.State).WithHint("the states are: %v", fleet.States())
	}
	var nodes []api.Node
	var rev fleet.Revision
	err = s.Store.View(ctx, func(sn fleet.Snapshot) error {
		nodes, rev = nil, sn.Revision()
		site, _, err := readSite(sn)
		if err != nil {
			return err
		}
		freezes, err := fleet.Freezes(sn)
		if err != nil {
			return err
		}
		var bad error
		err = eachRecord(sn, fleet.KindNode, func(n fleet.Node, at fleet.Revision) {
			if (in.State == "" || n.State == fleet.State(in.State)) && (in.Class == "" || n.Class == in.Class) && fleet.Selects(want, n.Labels) {
				last, err := lastState(sn, &n)
				bad = errors.Join(bad, err)
				nodes = append(nodes, frozenView(s.nodeView(n, at, site, last), freezes))
			}
		})
		return errors.Join(err, bad)
	})
	if err != nil {
		return nil, err
	}
	out, err := page(nodes, in.Paging, desc, func(n api.Node) mark {
		k := map[string]string{"name": n.Name, "state": string(n.State), "class": n.Class, "created": n.CreatedAt.UTC().Format(sortableTime)}[key]
		return mark{k, n.Name}
	})
	out.Revision = rev
	return &plain[api.List[api.Node]]{out}, err
}

// sortableTime sorts as text like the times that it writes.
const sortableTime = "2006-01-02T15:04:05.000000000Z"

func (s *Server) readNode(ctx context.Context, idOrName string) (api.Node, error) {
	var v api.Node
	err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
		n, rev, err := findNode(sn, idOrName)
		if err != nil {
			return err
		}
		site, _, err := readSite(sn)
		if err != nil {
			return err
		}
		freezes, err := fleet.Freezes(sn)
		if err != nil {
			return err
		}
		last, err := lastState(sn, &n)
		if err != nil {
			return err
		}
		v = frozenView(s.nodeView(n, rev, site, last), freezes)
		v.Wires, err = nodeWires(sn, n.ID)
		return err
	})
	return v, err
}

func (s *Server) getNode(ctx context.Context, in *Item) (*tagged[api.Node], error) {
	v, err := s.readNode(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if v.Inventory != "" {
		inv, err := s.inventory(ctx, v.Node.Inventory)
		if err != nil {
			return nil, err
		}
		v.WouldErase = inv.WouldErase()
	}
	if v.Cleaning != "" {
		rec, err := s.cleaningRecord(ctx, v.Cleaning)
		if err != nil {
			return nil, err
		}
		v.Cleaned = rec.Summary()
	}
	return tag(v, v.Revision), nil
}

type patchNodeIn struct {
	Item
	IfMatch string `header:"If-Match" maxLength:"100" doc:"the ETag that was read; a stale one gets 412"`
	Body    api.NodePatch
}

func (s *Server) patchNode(ctx context.Context, in *patchNodeIn) (*tagged[api.Node], error) {
	n, rev, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	p := in.Body
	var f faultList
	if p.Labels != nil {
		checkLabels(&f, *p.Labels)
	}
	f.fields = append(f.fields, p.BootNetwork.Validate("boot_network")...)
	f.check(p.User == nil || *p.User != "", "bmc_user", "is empty")
	f.check(p.Password == nil || *p.Password != "", "bmc_password", "is empty")
	if p.TLS != nil {
		checkTLS(&f, *p.TLS)
	}
	if err := f.err("the change of node " + n.Name); err != nil {
		return nil, err
	}
	if err := matches(in.IfMatch, rev); err != nil {
		return nil, err
	}
	opened, err := s.reopen(ctx, &n, &p)
	if err != nil {
		return nil, err
	}
	err = s.updateNodeAt(ctx, n.ID, in.IfMatch, func(n *fleet.Node, c *fleet.Change) error {
		text := "settings changed by " + callerOf(ctx)
		if opened != nil {
			if err := opened.record(ctx, s, n, c); err != nil {
				return err
			}
			text += ", BMC " + n.BMC.Address
		}
		setIf(&n.Class, p.Class)
		setIf(&n.Labels, p.Labels)
		setIf(&n.BMC.User, p.User)
		setIf(&n.RootDisk, p.RootDisk)
		setIf(&n.AllowReboot, p.AllowReboot)
		setIf(&n.DebugShell, p.DebugShell)
		if p.BootNetwork != nil {
			n.BootNetwork = p.BootNetwork
		}
		if p.Password != nil {
			c.Writes = append(c.Writes, fleet.Write{Key: bmcSecretKey(n.ID), Value: fleet.NewSecret(*p.Password)})
		}
		c.Events = append(c.Events, nodeEvent(n, "node.changed", s.Now(), text))
		return fits(n)
	})
	if err != nil {
		return nil, err
	}
	if p.Password != nil || p.User != nil || opened != nil {
		s.Credentials.CredentialChanged(n.ID)
	}
	if opened != nil && opened.waited {
		s.goOn(ctx, &n)
	}
	return s.getNode(ctx, &Item{string(n.ID)})
}

func setIf[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// updateNodeAt is updateNode under an If-Match.
func (s *Server) updateNodeAt(ctx context.Context, id fleet.NodeID, ifMatch string, fn func(*fleet.Node, *fleet.Change) error) error {
	if ifMatch == "" || ifMatch == "*" {
		return s.updateNode(ctx, id, fn)
	}
	n, rev, err := s.node(ctx, string(id))
	if err != nil {
		return err
	}
	if err := matches(ifMatch, rev); err != nil {
		return err
	}
	key := fleet.KeyOf(fleet.KindNode, id)
	c := fleet.Change{If: []fleet.Precondition{{Key: key, Revision: rev}}}
	if err := fn(&n, &c); err != nil {
		return err
	}
	c.Writes = append(c.Writes, fleet.Write{Key: key, Value: n})
	if _, err = s.Store.Commit(ctx, c); fleet.CodeOf(err) == "MC-STORE-STALE" {
		return matches(ifMatch, -1)
	}
	return err
}

// ForgetKeys are the records that go with a forgotten node: its secrets and what it claimed for itself alone.
func (s *Server) ForgetKeys(n fleet.Node) []fleet.Key {
	keys := []fleet.Key{fleet.KeyOf(fleet.KindWires, n.ID), fleet.KeyOf(fleet.KindBurned, n.ID), bmcSecretKey(n.ID), sessionSecretKey(n.ID), bootSecretKey(n.ID)}
	keys = append(keys, claims(&n)...)
	if n.Boot.MediaID != "" {
		keys = append(keys, mediumClaim(n.Boot.MediaID))
	}
	return keys
}

func (s *Server) forgetNode(ctx context.Context, in *Item) (*struct{}, error) {
	n, _, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	_, err = s.ask(ctx, &n, string(fleet.VerbForget), api.NodeVerb{})
	return nil, err
}

// ask hands the wish to the engine and lets go of what is remembered of a node that was forgotten.
func (s *Server) ask(ctx context.Context, n *fleet.Node, verb string, v api.NodeVerb) (fleet.OperationID, error) {
	op, err := s.engine.Verbs.Ask(ctx, n.ID, verb, v, callerOf(ctx))
	if err == nil && verb == string(fleet.VerbForget) {
		s.presence.forget(n.ID)
		s.progress.forget(n.ID)
		s.media.drop(n.ID)
		s.Credentials.Forgotten(n.ID)
	}
	return op, err
}

type nodeVerbIn struct {
	Item
	Verb string        `path:"verb" maxLength:"50" doc:"what to do"`
	Body *api.NodeVerb `required:"false"`
}

// peopleVerbs are all verbs that people may ask; done, deploy, allocate and resume are the engine's own.
func peopleVerbs() []string {
	out := []string{api.VerbHold, api.VerbUnhold, api.VerbProtect, api.VerbUnprotect, api.VerbRetry, api.VerbClearFault, api.VerbRepair}
	for _, t := range fleet.Lifecycle {
		own := t.Verb == fleet.VerbDone || t.Verb == fleet.VerbDeploy || t.Verb == fleet.VerbAllocate || t.Verb == fleet.VerbResume
		if !own && !slices.Contains(out, string(t.Verb)) {
			out = append(out, string(t.Verb))
		}
	}
	return out
}

func (s *Server) nodeVerb(ctx context.Context, in *nodeVerbIn) (*accepted[api.VerbAccepted], error) {
	if !slices.Contains(peopleVerbs(), in.Verb) {
		return nil, fleet.Errorf(fleet.NotFound, "MC-API-VERB", "%q is no verb that a node can be asked", shortened(in.Verb)).WithHint("the verbs are: %v", peopleVerbs())
	}
	n, rev, err := s.node(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	var v api.NodeVerb
	if in.Body != nil {
		v = *in.Body
	}
	op, err := s.ask(ctx, &n, in.Verb, v)
	if err != nil {
		return nil, err
	}
	out := &accepted[api.VerbAccepted]{Status: http.StatusOK, Body: api.VerbAccepted{Operation: op}}
	if op != "" {
		out.Status, out.Location = http.StatusAccepted, api.Base+"/operations/"+string(op)
	}
	if in.Verb == string(fleet.VerbForget) {
		out.Body.Node = s.nodeView(n, rev, fleet.Site{}, "")
		out.Body.Node.State = fleet.Forgotten
		return out, nil
	}
	out.Body.Node, err = s.readNode(ctx, string(n.ID))
	return out, err
}
