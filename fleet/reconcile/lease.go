package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

const (
	maxMembers    = 256
	claimedNodes  = 40 // as many node records are preconditions of a claim, too; a commit takes 64 keys
	leaseDeadline = 4 * time.Hour
)

// draft is a lease while it is being checked.
type draft struct {
	lease  fleet.Lease
	nodes  []doc[fleet.Node]
	fields []fleet.FieldError
	// choice is what was chosen where the request counts.
	choice fleet.Choice
	// network is the one that members have addresses of, netData what the first one's system is told of it.
	network doc[fleet.Network]
	netData json.RawMessage
}

func (d *draft) wrong(field, format string, args ...any) {
	d.fields = append(d.fields, fleet.FieldError{Field: field, Message: fmt.Sprintf(format, args...)})
}

// CreateLease checks a request whole, claims every node in one record, and begins. Nothing is claimed where anything is wrong.
func (l *Loop) CreateLease(ctx context.Context, r api.LeaseCreate, by string) (fleet.Lease, error) {
	userData := ""
	if len(r.UserData) > fleet.MaxUserData {
		return fleet.Lease{}, fleet.Errorf(fleet.Invalid, "MC-LEASE-USERDATA", "user-data has %d bytes, at most %d are taken", len(r.UserData), fleet.MaxUserData)
	}
	if r.Ready == "" {
		r.Ready = fleet.ReadyOS
	}
	// Whoever claims nodes changes the epoch: at once they would only refuse each other's commits.
	if err := enter(ctx, l.claiming); err != nil {
		return fleet.Lease{}, err
	}
	defer func() { <-l.claiming }()
	for try := 1; ; try++ {
		d, epoch, err := l.draft(ctx, r, by)
		if err == nil && r.Count > 0 && !d.choice.Fits {
			err = noFit(d.choice)
		}
		if err != nil {
			return fleet.Lease{}, err
		}
		if err := l.checkDrive(d, r.UserData); err != nil {
			return fleet.Lease{}, err
		}
		if len(r.UserData) > 0 && userData == "" {
			if userData, err = l.Blobs.PutBlob(ctx, "user-data", bytes.NewReader(r.UserData)); err != nil {
				return fleet.Lease{}, fmt.Errorf("store user-data: %w", err)
			}
		}
		d.lease.UserData = userData
		c := fleet.Change{If: []fleet.Precondition{{Key: fleet.AllocationEpoch, Revision: epoch.rev}, {Key: leaseKey(d.lease.ID)}}}
		for i, n := range d.nodes {
			if i < claimedNodes {
				c.If = append(c.If, fleet.Precondition{Key: n.key, Revision: n.rev})
			}
		}
		if d.network.v != nil {
			c.If = append(c.If, fleet.Precondition{Key: d.network.key, Revision: d.network.rev})
		}
		next := int64(1)
		if epoch.v != nil {
			next = *epoch.v + 1
		}
		c.Writes = []fleet.Write{{Key: fleet.AllocationEpoch, Value: next}, {Key: leaseKey(d.lease.ID), Value: &d.lease}}
		if d.lease.Name != "" {
			c.If = append(c.If, fleet.Precondition{Key: nameKey(d.lease.Name)})
			c.Writes = append(c.Writes, fleet.Write{Key: nameKey(d.lease.Name), Value: string(d.lease.ID)})
		}
		c.Events = []fleet.Event{leaseEvent(&d.lease, d.lease.CreatedAt, "lease.created", "%s asked for %d nodes%s with image %s", by, len(d.nodes), ofClass(r.LeaseRequest), r.Image)}
		_, err = l.Store.Commit(ctx, c)
		if err == nil {
			l.bells.ringLeases()
			return d.lease, nil
		}
		if fleet.CodeOf(err) != "MC-STORE-STALE" || try == most {
			return fleet.Lease{}, err
		}
	}
}

// checkDrive builds the first member's config drive and throws it away: what cannot be built is told to the tenant before any node is claimed, not
// found by the agent after the disk was written.
func (l *Loop) checkDrive(d *draft, userData []byte) error {
	if l.CheckDrive == nil || len(d.lease.Members) == 0 {
		return nil
	}
	r := d.lease.Request
	err := l.CheckDrive(step.ConfigDriveParams{InstanceID: string(d.lease.ID), Hostname: d.lease.Members[0].Hostname, SSHKeys: r.SSHKeys, Meta: r.Meta,
		Network: d.netData, Form: r.ConfigDrive}, userData)
	if err != nil {
		return fmt.Errorf("the lease's config drive: %w", err)
	}
	return nil
}

func leaseKey(id fleet.LeaseID) fleet.Key { return fleet.KeyOf(fleet.KindLease, id) }

func leaseEvent(l *fleet.Lease, at time.Time, kind, format string, args ...any) fleet.Event {
	return fleet.Event{Type: kind, At: at, Subject: leaseKey(l.ID), Lease: l.ID, Text: fmt.Sprintf("lease %s: ", firstOf(l.Name, string(l.ID))) + fmt.Sprintf(format, args...)}
}

// draft checks a request against one snapshot.
func (l *Loop) draft(ctx context.Context, r api.LeaseCreate, by string) (*draft, doc[int64], error) {
	now := l.Now().UTC()
	d := &draft{lease: fleet.Lease{ID: fleet.LeaseID(l.NewID()), Name: r.Name, State: fleet.LeasePending, Since: now, Request: r.LeaseRequest, CreatedBy: by, CreatedAt: now}}
	var epoch doc[int64]
	var refusal error
	err := l.Store.View(ctx, func(s fleet.Snapshot) error {
		var err error
		if epoch, err = maybe[int64](s, fleet.AllocationEpoch); err != nil {
			return err
		}
		site, err := maybe[fleet.Site](s, fleet.SiteKey)
		if err != nil {
			return err
		}
		d.checkRequest(r, now)
		if r.Ready == fleet.ReadyPhoneHome {
			x := fleet.Site{}
			if site.v != nil {
				x = *site.v
			}
			refusal = phoneHome(x)
		}
		if err := nameTaken(s, r.Name, &refusal); err != nil {
			return err
		}
		if img, err := maybe[fleet.Image](s, fleet.KeyOf(fleet.KindImage, r.Image)); err != nil {
			return err
		} else if img.v == nil {
			d.wrong("image", "there is no image %q", r.Image)
		}
		var picks []fleet.Pick
		for _, name := range r.Nodes {
			picks = append(picks, fleet.Pick{Name: name})
		}
		if r.Count > 0 && len(d.fields) == 0 {
			if err := l.draftChoice(s, d, now); err != nil {
				return err
			}
			picks = d.choice.Chosen
		}
		if err := l.draftMembers(s, d, picks, &refusal); err != nil || refusal != nil || len(d.fields) > 0 {
			return err
		}
		refusal = l.addressDraft(s, d)
		return nil
	})
	if err != nil {
		return nil, epoch, err
	}
	if len(d.fields) > 0 {
		e := fleet.Errorf(fleet.Invalid, "MC-LEASE-INVALID", "the lease cannot be made")
		e.Fields = d.fields
		return nil, epoch, e.WithHint("metalctl node list, metalctl image list")
	}
	return d, epoch, refusal
}

func (d *draft) checkRequest(r api.LeaseCreate, now time.Time) {
	if len(r.Nodes) > maxMembers {
		d.wrong("nodes", "%d are more than %d", len(r.Nodes), maxMembers)
	}
	d.checkCount(r.LeaseRequest)
	switch r.Ready {
	case fleet.ReadyOS, fleet.ReadyNow, fleet.ReadyPhoneHome:
	default:
		d.wrong("ready", "%q is none of os-running, phone-home, now", r.Ready)
	}
	if r.MinReady < 0 || r.MinReady > r.Wanted() {
		d.wrong("min_ready", "%d is not between 0 and the %d nodes", r.MinReady, r.Wanted())
	}
	if !r.Until.IsZero() && !r.Until.After(now) {
		d.wrong("until", "%s is over already", r.Until.UTC().Format(time.RFC3339))
	}
	if r.GraceSeconds < 0 {
		d.wrong("grace_seconds", "is negative")
	}
	if r.DeadlineSeconds < 0 {
		d.wrong("deadline_seconds", "is negative")
	}
}

// draftMembers finds the nodes, names their hosts, and asks the table for every one of them before any is claimed.
func (l *Loop) draftMembers(s fleet.Snapshot, d *draft, picks []fleet.Pick, refusal *error) error {
	seen, hosts := map[fleet.NodeID]bool{}, map[string]bool{}
	for i, p := range picks {
		at, name := fmt.Sprintf("nodes[%d]", i), p.Name
		id, ok, err := named(s, firstOf(string(p.Node), name))
		switch {
		case err != nil:
			return err
		case !ok:
			d.wrong(at, "there is no node %q", name)
			continue
		case seen[id]:
			d.wrong(at, "%q is named twice", name)
			continue
		}
		seen[id] = true
		v, err := l.read(s, id)
		if err != nil {
			return err
		}
		n := v.node.v
		host := hostname(d.lease, n.Name, i)
		if !validHost.MatchString(host) {
			d.wrong("hostname_template", "gives %q for %s, which is no host name", host, n.Name)
		}
		if hosts[host] {
			d.wrong("hostname_template", "gives %q to two nodes", host)
		}
		hosts[host] = true
		f := v.guards(fleet.VerbAllocate)
		f.Lease = d.lease.ID
		if v.frozen != nil && *refusal == nil {
			*refusal = v.frozen.Refuse(*n, "lease")
		}
		other, err := l.leasebook.holder(s, id)
		if err != nil {
			return err
		}
		if other != "" {
			*refusal = fleet.Errorf(fleet.Conflict, "MC-LEASE-TAKEN", "%s belongs to lease %s", n.Name, other).WithHint("metalctl node list --state available")
		} else if err := v.allocatable(f); err != nil && *refusal == nil {
			*refusal = err
		} else if err := l.wiresFit(s, v, d.lease.Request); err != nil && *refusal == nil {
			*refusal = err
		}
		d.nodes = append(d.nodes, v.node)
		d.lease.Members = append(d.lease.Members, fleet.Member{Node: id, Name: n.Name, Hostname: host, State: fleet.MemberReserved, Since: v.now, Index: i, Chosen: p.Why})
	}
	return nil
}

// allocatable asks the table, and says in words which fact refuses.
func (v *view) allocatable(f fleet.Facts) error {
	n := v.node.v
	if v.op.v != nil || n.Wish != nil {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-BUSY", "a plan runs on %s", n.Name).WithHint("metalctl node show %s", n.Name)
	}
	_, err := fleet.Move(n.State, fleet.VerbAllocate, f)
	if err == nil || fleet.CodeOf(err) != "MC-NODE-GUARD" {
		return err
	}
	why, next := "it was never inspected from inside", "metalctl node inspect "+n.Name
	switch {
	case f.Blocked:
		x := n.Blocked(fleet.BlocksAllocate)[0]
		why = fmt.Sprintf("fault %s on %s blocks it: %s", x.Code, x.Component, x.Evidence)
	case f.Held:
		why = "it is held by " + n.Hold.By
	case f.Protected:
		why = "it is protected"
	case f.Dirty != "":
		why = "it is not clean"
	case v.class.Name == "":
		why, next = "it has no class that exists", "metalctl node set "+n.Name+" --class CLASS"
	case !f.ClassMatches && n.Inventory != "" && n.Compared != v.class.Compared(n.Inventory):
		why = "its class is another than it was last compared with"
	case !f.ClassMatches && n.Inventory != "":
		why, next = "it does not match its class", "metalctl node show "+n.Name
	case !f.Fresh && n.Inventory != "":
		why, next = fmt.Sprintf("it was erased to level %q, and its class wants %q", n.Erased, v.class.EraseLevel), "metalctl node clean "+n.Name
	case f.BurnInDue:
		why, next = "its burn-in is due", "metalctl node burn "+n.Name
	case !f.Isolated && !f.IsolationWaived:
		why = "its isolation is not proven, and the site does not say isolation: none"
	}
	if f.Blocked || f.Held || f.Dirty != "" || f.ClassMatches && f.Fresh && !f.BurnInDue {
		next = "metalctl node show " + n.Name
	}
	if f.Protected && !f.Blocked && !f.Held {
		next = "metalctl node unprotect " + n.Name
	}
	return fleet.Errorf(fleet.Conflict, "MC-NODE-GUARD", "%s cannot be handed out: %s", n.Name, why).WithHint("%s", next)
}
