package boot

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func sample(t *testing.T, node string) string {
	t.Helper()
	b, err := (&fleet.Credential{Version: 1, Node: node, Generation: 1, Token: fleet.NewSecret("t"), IssuedAt: time.Unix(1e9, 0),
		Servers: []fleet.ServerRef{{URL: "https://a", KeyPin: "sha256/" + strings.Repeat("A", 43) + "="}}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + strings.Repeat(" ", fleet.CredentialWindow-len(b))
}

// medium is a boot medium as far as the agent looks at it.
func medium(label, credential string) string {
	w := fleet.Window{Offset: 20 << 10 << 1, Size: fleet.CredentialWindow}
	b := make([]byte, w.Offset+w.Size)
	d := b[16*2048:]
	copy(d, "\x01CD001")
	copy(d[40:], label+strings.Repeat(" ", 32-len(label)))
	copy(d[883:], w.Mark(strings.Repeat("0", 64)))
	copy(b[w.Offset:], credential)
	return string(b)
}

func TestReadCredential(t *testing.T) {
	blank := strings.Repeat(" ", fleet.CredentialWindow)
	for _, c := range []struct {
		name  string
		files map[string]string
		node  string
		kind  fleet.Kind
	}{
		{"the boot loader handed it on", map[string]string{".extra/credentials/node.cred": sample(t, "n1")}, "n1", 0},
		{"it lies on a CD", map[string]string{"sys/block/sr0/removable": "1", "dev/sr0": medium("METALCTL", sample(t, "n2"))}, "n2", 0},
		{"the boot loader handed on a blank one, a USB disk has it", map[string]string{".extra/credentials/node.cred": blank,
			"sys/block/sda/removable": "1\n", "dev/sda": medium("METALCTL", sample(t, "n3"))}, "n3", 0},
		{"another CD is in the way", map[string]string{"sys/block/sr0/removable": "1", "dev/sr0": medium("DEBIAN", sample(t, "x")),
			"sys/block/sr1/removable": "1", "dev/sr1": medium("METALCTL", sample(t, "n4"))}, "n4", 0},
		{"a fixed disk is not believed", map[string]string{"sys/block/sda/removable": "0", "dev/sda": medium("METALCTL", sample(t, "x"))}, "", fleet.NotFound},
		{"the medium was not made for a node", map[string]string{"sys/block/sr0/removable": "1", "dev/sr0": medium("METALCTL", blank)}, "", fleet.NotFound},
		{"a drive without a medium", map[string]string{"sys/block/sr0/removable": "1"}, "", fleet.NotFound},
		{"a medium that ends early", map[string]string{"sys/block/sr0/removable": "1", "dev/sr0": "short"}, "", fleet.NotFound},
		{"a CD and a USB disk agree", map[string]string{"sys/block/sda/removable": "1", "dev/sda": medium("METALCTL", sample(t, "n5")),
			"sys/block/sr0/removable": "1", "dev/sr0": medium("METALCTL", sample(t, "n5"))}, "n5", 0},
		{"a CD and a USB disk are for different nodes", map[string]string{"sys/block/sda/removable": "1", "dev/sda": medium("METALCTL", sample(t, "n6")),
			"sys/block/sr0/removable": "1", "dev/sr0": medium("METALCTL", sample(t, "n7"))}, "", fleet.Conflict},
		{"it is damaged", map[string]string{".extra/credentials/node.cred": "{"}, "", fleet.Invalid},
		{"nothing", nil, "", fleet.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			got, err := readCredential(ctx, tree(t, c.files), 10*time.Millisecond)
			if c.node == "" {
				if err == nil || fleet.KindOf(err) != c.kind || fleet.CodeOf(err) != "MC-BOOT-CREDENTIAL" {
					t.Errorf("got %v, %v; want kind %v", got, err, c.kind)
				}
			} else if err != nil || got.Node != c.node {
				t.Errorf("got %+v, %v; want %s", got, err, c.node)
			}
		})
	}
}

func TestTwoMediaThatDifferAreBothNamed(t *testing.T) {
	root := tree(t, map[string]string{"sys/block/sda/removable": "1", "dev/sda": medium("METALCTL", sample(t, "old")),
		"sys/block/sr1/removable": "1", "dev/sr1": medium("METALCTL", sample(t, "new"))})
	c, err := scanMedia(root)
	if c != nil || err == nil || !strings.Contains(err.Error(), "/dev/sr1 and /dev/sda") {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestCredentialAppearsLate(t *testing.T) {
	root := tree(t, nil)
	got := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		_, err := readCredential(ctx, root, 10*time.Millisecond)
		got <- err
	}()
	if err := os.MkdirAll(filepath.Join(root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev/sr0"), []byte(medium("METALCTL", sample(t, "n"))), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(root, "sys/block/sr0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func FuzzReadWindow(f *testing.F) {
	f.Add([]byte(medium("METALCTL", "{}")))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := readWindow(strings.NewReader(string(b))); err == nil && len(w) != fleet.CredentialWindow {
			t.Errorf("a window of %d bytes", len(w))
		}
	})
}
