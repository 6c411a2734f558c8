package fabric

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

func TestDeviceOf(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"class/infiniband_mad/abi_version":       "5\n",
		"class/infiniband_mad/umad0/ibdev":       "mlx5_0\n",
		"class/infiniband_mad/umad0/port":        "1\n",
		"class/infiniband_mad/umad1/ibdev":       "mlx5_1\n",
		"class/infiniband_mad/umad1/port":        "1\n",
		"class/infiniband/mlx5_0/ports/1/gids/0": "fe80:0000:0000:0000:5000:0000:0000:0011\n",
		"class/infiniband/mlx5_1/ports/1/gids/0": "fe80:0000:0000:0000:5000:0000:0000:0021\n",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := DeviceOf(root, "0x5000000000000021"); err != nil || got != "umad1" {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := DeviceOf(root, "0x5000000000000031"); fleet.KindOf(err) != fleet.NotFound {
		t.Errorf("a port that is not here: %v", err)
	}
	if _, err := DeviceOf(t.TempDir(), "0x5000000000000021"); fleet.KindOf(err) != fleet.Unavailable {
		t.Errorf("a kernel without the module: %v", err)
	}
}

// TestEnvelope compares with the bytes of a struct ib_user_mad on a little-endian machine: agent 3, 400 ms, the permissive address.
func TestEnvelope(t *testing.T) {
	d := Device{agent: 3, timeout: 400 * time.Millisecond}
	q := question{attr: attrPKeyTable, mod: 1}.encode(7, 0)
	e := d.envelope(q[:])
	if got, want := hex.EncodeToString(e[:32]), "03000000"+"00000000"+"90010000"+"00000000"+"00000000"+"00000000"+"00000000"+"ffff0000"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	buf := make([]byte, Size)
	if n := open(e, buf); n != Size || string(buf) != string(q[:]) {
		t.Errorf("%d bytes came out, or others", n)
	}
	lost := append([]byte(nil), e[:umadHeader+24]...)
	lost[4] = 110
	if n := open(lost, buf); n != Size || buf[3] != methodGet || buf[15] != 7 {
		t.Errorf("a datagram that nobody answered: %d bytes, method %d", n, buf[3])
	}
	if n := open(e[:10], buf); n != 0 {
		t.Errorf("half a header: %d bytes", n)
	}
	if r := registration(); r[21] != 0x81 || r[22] != 1 || len(r) != 28 {
		t.Errorf("registration %x", r)
	}
}
