package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// memberships checks S4. The lease record claims first and the nodes follow, so that a reserved member's node may not say so yet.
func (c *checker) memberships() {
	holder := map[fleet.NodeID]fleet.LeaseID{}
	for id, l := range c.leases {
		key := fleet.KindLease + "/" + string(id)
		for _, m := range l.Members {
			if l.State.Over() || m.State == fleet.MemberReplaced || m.State == fleet.MemberReleased {
				continue
			}
			if other, taken := holder[m.Node]; taken {
				c.addf(key, "holds node %s, which lease %s holds as well", m.Node, other)
			}
			holder[m.Node] = id
			n, ok := c.nodes[m.Node]
			switch {
			case !ok:
				c.addf(key, "has the member %s, which does not exist", m.Node)
			case n.Lease == id:
			case n.Lease != "":
				c.addf(key, "has the member %s, whose lease is %s", m.Node, n.Lease)
			case m.State == fleet.MemberDeploying || m.State == fleet.MemberReady:
				c.addf(key, "has the member %s %s, and the node says that it has no lease", m.Node, m.State)
			}
		}
	}
	for id, n := range c.nodes {
		if n.Lease == "" {
			continue
		}
		key := fleet.KindNode + "/" + string(id)
		l, ok := c.leases[n.Lease]
		if !ok {
			c.addf(key, "is in the lease %s, which does not exist", n.Lease)
			continue
		}
		listed := false
		for _, m := range l.Members {
			listed = listed || m.Node == id
		}
		if !listed {
			c.addf(key, "is in the lease %s, which does not list it", n.Lease)
		}
	}
}

// runs checks S5.
func (c *checker) runs() {
	open := map[fleet.NodeID]fleet.OperationID{}
	for id, o := range c.operations {
		if o.State.Over() {
			continue
		}
		key := fleet.KindOperation + "/" + string(id)
		if other, has := open[o.Node]; has {
			c.addf(key, "is open on node %s beside %s", o.Node, other)
		}
		open[o.Node] = id
		if n, ok := c.nodes[o.Node]; !ok {
			c.addf(key, "is open on node %s, which does not exist", o.Node)
		} else if n.Operation != id && !wishes(n, id) {
			c.addf(key, "is open on node %s, which points to %q", o.Node, n.Operation)
		}
	}
	for id, n := range c.nodes {
		if n.Operation == "" {
			continue
		}
		key := fleet.KindNode + "/" + string(id)
		if o, ok := c.operations[n.Operation]; !ok {
			c.addf(key, "points to the operation %s, which does not exist", n.Operation)
		} else if o.Node != id {
			c.addf(key, "points to the operation %s, which is of node %s", n.Operation, o.Node)
		}
	}
}

// wishes reports whether the node's wish, not yet begun, is that operation.
func wishes(n fleet.Node, id fleet.OperationID) bool { return n.Wish != nil && n.Wish.Operation == id }

// checkBlobs checks S7.
func (c *checker) checkBlobs(ctx context.Context) {
	seen := map[string]bool{}
	root := c.db.blobDir()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".tmp-") {
			return errors.Join(err, ctx.Err())
		}
		kind, _, _ := strings.Cut(strings.TrimPrefix(path, root+"/"), "/")
		digest := "sha256:" + d.Name()
		seen[digest] = true
		got, err := c.db.fileDigest(ctx, kind, digest, path)
		if err == nil && got != digest {
			c.addf("blob/"+kind+"/"+digest, "its bytes do not match its name")
		}
		return err
	})
	if err != nil {
		c.addf("", "read the blobs: %v", err)
	}
	for digest, by := range c.blobs {
		if !seen[digest] {
			c.addf(by, "names the blob %s, which does not exist", digest)
		}
	}
}

// fileDigest returns the digest of what is in a blob's file, "" where it cannot be decrypted.
func (db *DB) fileDigest(ctx context.Context, kind, digest, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if kind != BlobUserData {
		return copyBlob(ctx, io.Discard, f, db.limits.BlobBytes)
	}
	sealed, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	plain, err := db.seal.open([]byte(digest), sealed)
	if err != nil {
		return "", nil
	}
	sum := sha256.Sum256(plain)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
