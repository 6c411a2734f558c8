// Package witness keeps a log outside of the store, which testifies against a store that is older than what was done.
package witness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// What a line tells of.
const (
	// Start: a server began to work on the store.
	Start = "start"
	// Boot: a boot generation of a node began. Handover: the node was given into a tenant's hands. Clean: its disks were erased.
	Boot     = "boot"
	Handover = "handover"
	Clean    = "clean"
)

// Line is one line of the log, as JSON. A log is append-only; a line that is there twice says nothing new.
type Line struct {
	At    time.Time `json:"at"`
	Event string    `json:"event"`
	// Epoch and Generation are the store's life, Revision is how far the store was when the line was written.
	Epoch      string         `json:"epoch"`
	Generation int            `json:"generation"`
	Revision   fleet.Revision `json:"revision"`
	Node       fleet.NodeID   `json:"node,omitempty"`
	Name       string         `json:"name,omitempty"`
	Lease      fleet.LeaseID  `json:"lease,omitempty"`
	Boots      int64          `json:"boots,omitempty"`
	Handovers  int64          `json:"handovers,omitempty"`
}

// Log is a place outside of the store.
type Log interface {
	// Append writes lines durably, as far as the place promises.
	Append(ctx context.Context, lines []Line) error
	// Read calls yield for every line; ErrWriteOnly where the place cannot be read.
	Read(ctx context.Context, yield func(Line)) error
	// String names the place without secrets.
	String() string
}

// ErrWriteOnly: the place takes lines and gives none back.
var ErrWriteOnly = errors.New("this log can only be written")

// Open makes the Log of a target: a file's absolute path, syslog://HOST:PORT (tcp), syslog+udp://HOST:PORT, or an https URL that takes POST and answers GET
// with what was posted. token is sent to https as a bearer token unless it is zero.
func Open(target string, token fleet.Secret) (Log, error) {
	u, err := url.Parse(target)
	switch {
	case strings.HasPrefix(target, "/"):
		return file(target), nil
	case err == nil && u.Host != "" && u.User == nil && (u.Scheme == "syslog" || u.Scheme == "syslog+udp") && u.Port() != "":
		return syslog{network: map[string]string{"syslog": "tcp", "syslog+udp": "udp"}[u.Scheme], address: u.Host}, nil
	case err == nil && u.Host != "" && u.User == nil && u.Scheme == "https":
		return newRemote(u, token), nil
	}
	return nil, fleet.Errorf(fleet.Invalid, "MC-WITNESS-TARGET", "the witness %q is no absolute path, syslog://HOST:PORT, syslog+udp://HOST:PORT or https URL", target).
		WithHint("set witness: [/mnt/elsewhere/metalctl.witness] in the server's configuration")
}

func encode(lines []Line) ([]byte, error) {
	var b bytes.Buffer
	for _, l := range lines {
		j, err := json.Marshal(l)
		if err != nil {
			return nil, fmt.Errorf("encode a line of the witness: %w", err)
		}
		b.Write(append(j, '\n'))
	}
	return b.Bytes(), nil
}

// maxLine bounds what is taken for a line.
const maxLine = 64 << 10

// parse reads lines. What is no line of ours, such as the rest of one that a crash cut off, is passed over: others may write there, too.
func parse(r io.Reader, yield func(Line)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	for s.Scan() {
		var l Line
		if json.Unmarshal(s.Bytes(), &l) == nil && l.Epoch != "" && l.Revision >= 0 {
			yield(l)
		}
	}
	return s.Err()
}
