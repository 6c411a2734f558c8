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
		for _, m := range l.members {
			if l.state.Over() || m.state == fleet.MemberReplaced || m.state == fleet.MemberReleased {
				continue
			}
			if other, taken := holder[m.node]; taken {
				c.addf(key, "holds node %s, which lease %s holds as well", m.node, other)
			}
			holder[m.node] = id
			n, ok := c.nodes[m.node]
			switch {
			case !ok:
				c.addf(key, "has the member %s, which does not exist", m.node)
			case n.lease == id:
			case n.lease != "":
				c.addf(key, "has the member %s, whose lease is %s", m.node, n.lease)
			case m.state == fleet.MemberDeploying || m.state == fleet.MemberReady:
				c.addf(key, "has the member %s %s, and the node says that it has no lease", m.node, m.state)
			}
		}
	}
	for id, n := range c.nodes {
		if n.lease == "" {
			continue
		}
		key := fleet.KindNode + "/" + string(id)
		l, ok := c.leases[n.lease]
		if !ok {
			c.addf(key, "is in the lease %s, which does not exist", n.lease)
			continue
		}
		listed := false
		for _, m := range l.members {
			listed = listed || m.node == id
		}
		if !listed {
			c.addf(key, "is in the lease %s, which does not list it", n.lease)
		}
	}
}

// runs checks S5.
func (c *checker) runs() {
	open := map[fleet.NodeID]fleet.OperationID{}
	for id, o := range c.operations {
		if o.over {
			continue
		}
		key := fleet.KindOperation + "/" + string(id)
		if other, has := open[o.node]; has {
			c.addf(key, "is open on node %s beside %s", o.node, other)
		}
		open[o.node] = id
		if n, ok := c.nodes[o.node]; !ok {
			c.addf(key, "is open on node %s, which does not exist", o.node)
		} else if n.operation != id && n.wish != id {
			c.addf(key, "is open on node %s, which points to %q", o.node, n.operation)
		}
	}
	for id, n := range c.nodes {
		if n.operation == "" {
			continue
		}
		key := fleet.KindNode + "/" + string(id)
		if o, ok := c.operations[n.operation]; !ok {
			c.addf(key, "points to the operation %s, which does not exist", n.operation)
		} else if o.node != id {
			c.addf(key, "points to the operation %s, which is of node %s", n.operation, o.node)
		}
	}
}

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
