//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/store"
)

// What a server tells of itself shows none of the secrets that it keeps, however strangely they came into its log and its configuration.
func TestDiagnoseShowsNoSecret(t *testing.T) {
	dir := t.TempDir()
	db := contract.OpenStoreIn(t, filepath.Join(dir, "store"), store.Options{})
	const id fleet.NodeID = "01900000-0000-7000-8000-000000000001"
	secrets := map[string]string{
		"BMC password": `hun"ter 2,\;x`, "session token": "plain+session/token", "boot token": "c4n4ry-boot-token", "medium": "c4n4ry-medium",
		"admin token": "c4n4ry of the administrator", "witness token": "c4n4ry-witness", "key": "MHcCAQEEIc4n4ryOfTheAuthority", "short": "zq9!",
	}
	credential, err := json.Marshal(map[string]any{"node": id, "token": secrets["boot token"]})
	if err != nil {
		t.Fatal(err)
	}
	boot, err := json.Marshal(map[string]any{"media_id": secrets["medium"], "generation": 7, "credential": string(credential)})
	if err != nil {
		t.Fatal(err)
	}
	session, err := json.Marshal(savedSession{URI: "/redfish/v1/SessionService/Sessions/1", Token: secrets["session token"]})
	if err != nil {
		t.Fatal(err)
	}
	seal := func(key fleet.Key, text string) fleet.Write {
		return fleet.Write{Key: key, Value: fleet.NewSecret(text)}
	}
	if _, err := db.Commit(t.Context(), fleet.Change{Writes: []fleet.Write{
		seal(passwordKey(id), secrets["BMC password"]), seal(sessionKey(id), string(session)), seal("secret/boot/"+fleet.Key(id), string(boot)),
		seal("secret/server/authority", "-----BEGIN EC PRIVATE KEY-----\n"+secrets["key"]+"\n-----END EC PRIVATE KEY-----\n"), seal("secret/node/2/bmc", secrets["short"]),
	}}); err != nil {
		t.Fatal(err)
	}
	cfg := defaultServerConfig()
	cfg.DataDir, cfg.WitnessTokenFile, cfg.LogFormat = dir, filepath.Join(dir, "witness"), "json"
	cfg.Witness = []string{"/mnt/elsewhere/log", "https://ann:c4n4ry-login@logs.example.org/w?sig=c4n4ry-signature", "syslog://10.0.0.9:514"}
	for file, text := range map[string]string{"admin.token": secrets["admin token"], "witness": secrets["witness token"]} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			cfg.LogFormat = format
			log, ring, err := newLogger(&program{stderr: new(strings.Builder)}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			log.Info("a line that says something", "node", "hgx-001")
			for what, s := range secrets {
				log.Warn("a BMC repeats it", "text", s, "quoted", strconv.Quote(s), "url", "https://"+url.QueryEscape(s)+"@x/", "coded", base64.StdEncoding.EncodeToString([]byte(s)),
					"err", fmt.Errorf("inner trouble with %q: %s", s, what))
			}
			log.Warn("addresses", slog.String("origin", "https://o/i.raw?X-Amz-Signature=c4n4ry-signature"), "login", "https://ann:c4n4ry-login@x/")
			p := &physician{cfg: cfg, db: db, ring: ring, now: time.Now, began: time.Now()}
			d, err := p.Diagnose(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			secrets["login"], secrets["signature"] = "c4n4ry-login", "c4n4ry-signature"
			for what, s := range secrets {
				quoted := strconv.Quote(s)
				for where, text := range map[string]string{"the configuration": d.Config, "the log": d.Log, "the stacks": d.Goroutines} {
					for _, form := range []string{s, quoted[1 : len(quoted)-1], base64.StdEncoding.EncodeToString([]byte(s)), url.QueryEscape(s)} {
						if strings.Contains(text, form) {
							t.Errorf("%s shows the %s as %s:\n%s", where, what, form, text)
						}
					}
				}
			}
			delete(secrets, "login")
			delete(secrets, "signature")
			for text, wants := range map[string][]string{
				d.Log: {"a line that says something", "hgx-001", "a BMC repeats it"}, d.Config: {"listen:", "/mnt/elsewhere/log", "logs.example.org/w", "syslog://10.0.0.9:514"},
				d.Goroutines: {"TestDiagnoseShowsNoSecret", "goroutine profile: total"},
			} {
				for _, want := range wants {
					if !strings.Contains(text, want) {
						t.Errorf("%q is missing in\n%s", want, text)
					}
				}
			}
			if d.Store.Kinds[fleet.KindSecret].Count != 5 || d.Versions.Go == "" || d.Process.Goroutines == 0 {
				t.Errorf("%+v %+v %+v", d.Store, d.Versions, d.Process)
			}
		})
	}
}

// The ring keeps the newest lines whole, and says how much it dropped.
func TestLogRing(t *testing.T) {
	r := &logRing{}
	total := 0
	for i := range 3 * ringBytes / 1000 {
		line := fmt.Sprintf("%06d %s\n", i, strings.Repeat("x", 992))
		total += len(line)
		if n, err := r.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	tail, dropped := r.tail()
	last := fmt.Sprintf("%06d ", 3*ringBytes/1000-1)
	if len(tail) > ringBytes || len(tail) < ringBytes-1000 || dropped != int64(total-len(tail)) || len(tail)%1000 != 0 || !strings.Contains(string(tail), last) {
		t.Errorf("kept %d bytes and dropped %d of %d", len(tail), dropped, total)
	}
	long := strings.Repeat("y", 2*ringLine) + "\n"
	if n, err := r.Write([]byte(long)); n != len(long) || err != nil {
		t.Fatal(n, err)
	}
	if tail, _ := r.tail(); !strings.HasSuffix(string(tail), "y … cut\n") {
		t.Errorf("a long line ends %q", tail[len(tail)-20:])
	}
}

// narrow takes so many bytes, and no more than that.
type narrow struct {
	bytes.Buffer
	room int
}

func (n *narrow) Write(p []byte) (int, error) {
	if len(p) <= n.room {
		n.room -= len(p)
		return n.Buffer.Write(p)
	}
	p, n.room = p[:n.room], 0
	n.Buffer.Write(p)
	return len(p), &os.PathError{Op: "write", Path: "/var/log/metalctl", Err: syscall.ENOSPC}
}

// TestLogOnAFullDisk: the server's log fails nobody; doctor says how much is missing and why, what is in memory is whole, and the next line that is written stands alone.
func TestLogOnAFullDisk(t *testing.T) {
	to := &narrow{room: 15}
	r := &logRing{to: to}
	p := &physician{ring: r}
	write := func(line string) {
		t.Helper()
		if n, err := r.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	write("first line\n")
	if got := p.log(); got != nil {
		t.Fatalf("found %+v", got)
	}
	write("second line\n")
	write("third line\n")
	got := p.log()
	if len(got) != 1 || got[0].Level != api.LevelWarning || !strings.HasPrefix(got[0].Text, "2 lines of the server's log could not be written since ") || !strings.Contains(got[0].Text, "/var/log/metalctl: no space left") || got[0].Hint == "" {
		t.Errorf("found %+v", got)
	}
	to.room = 1000
	write("fourth line\n")
	if got := p.log(); got != nil {
		t.Errorf("with room again: %+v", got)
	}
	if want := "first line\nseco\nfourth line\n"; to.String() != want {
		t.Errorf("written %q", to.String())
	}
	if tail, _ := r.tail(); string(tail) != "first line\nsecond line\nthird line\nfourth line\n" {
		t.Errorf("kept %q", tail)
	}
}
