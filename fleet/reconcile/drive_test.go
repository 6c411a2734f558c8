package reconcile_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/step"
)

// A config drive that cannot be built is the tenant's mistake, told before anything is claimed.
func TestLeaseWithABadDrive(t *testing.T) {
	w := available(t)
	w.Loop.CheckDrive = func(p step.ConfigDriveParams, userData []byte) error {
		if p.Hostname != "n1" || p.SSHKeys[0] != "no key" || string(userData) != "#cloud-config" {
			t.Errorf("asked about %+v %q", p, userData)
		}
		e := fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-INVALID", "the config drive cannot be built from this")
		e.Fields = []fleet.FieldError{{Field: "ssh_keys[0]", Message: "not a public key"}}
		return e
	}
	r := request(func(r *fleet.LeaseRequest) { r.SSHKeys = []string{"no key"} })
	r.UserData = []byte("#cloud-config")
	_, err := w.Loop.CreateLease(t.Context(), r, "tester")
	var e *fleet.Error
	if !errors.As(err, &e) || fleet.KindOf(err) != fleet.Invalid || len(e.Fields) != 1 {
		t.Fatalf("got %v", err)
	}
	w.Loop.CheckDrive = nil
	leased(t, w, nil) // nothing was claimed
}

// What only the agent finds wrong with a tenant's drive is no fault of the machine: the node can be handed out again.
func TestDriveFailureBlocksNothing(t *testing.T) {
	w := available(t)
	w.Machine.Deny(step.ConfigDrive, fleet.Errorf(fleet.Invalid, "MC-CONFIGDRIVE-INVALID", "the config drive cannot be built from this"))
	if _, err := w.Loop.CreateLease(t.Context(), request(nil), "tester"); err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	n, _ := w.Read()
	f := n.Fault("MC-FAULT-DEPLOY", "plan/deploy")
	if f == nil || f.Blocks != fleet.BlocksNothing {
		t.Fatalf("faults %+v", n.Faults)
	}
}

// fullBlobs is a store without space for files.
type fullBlobs struct{ fleet.Blobs }

func (fullBlobs) PutBlob(context.Context, string, io.Reader) (string, error) {
	return "", fleet.Errorf(fleet.Unavailable, "MC-STORE-FULL", "store a blob: no space left on device").WithHint("free space on the data folder's disk")
}

// What belongs on a config drive does not fit on the server's disk: nothing is claimed, and the same request is good once there is space.
func TestUserDataOnAFullDisk(t *testing.T) {
	w := available(t)
	r := request(nil)
	r.UserData = []byte("#cloud-config")
	blobs := w.Loop.Blobs
	w.Loop.Blobs = fullBlobs{blobs}
	before, _ := w.Read()
	if _, err := w.Loop.CreateLease(t.Context(), r, "tester"); fleet.CodeOf(err) != "MC-STORE-FULL" || fleet.KindOf(err) != fleet.Unavailable || fleet.HintOf(err) == "" {
		t.Fatalf("got %v", err)
	}
	w.Settle(time.Hour)
	if n, _ := w.Read(); n.State != fleet.Available || n.Lease != "" || n.Operation != before.Operation {
		t.Errorf("refused, and the node is %s for lease %q", n.State, n.Lease)
	}
	w.Loop.Blobs = blobs
	l, err := w.Loop.CreateLease(t.Context(), r, "tester")
	if err != nil {
		t.Fatal(err)
	}
	w.Settle(time.Hour)
	if wantState(t, w, fleet.Active); readLease(t, w, l.ID).UserData == "" {
		t.Error("the lease has no user-data")
	}
}
