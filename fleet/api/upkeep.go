package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Backup is a backup that lies on the server.
type Backup struct {
	Name string `json:"name"`
	// Why is hourly, asked, or schema (made before a migration).
	Why        string         `json:"why"`
	MadeAt     time.Time      `json:"made_at"`
	Revision   fleet.Revision `json:"revision"`
	Generation int            `json:"generation"`
	Epoch      string         `json:"epoch,omitempty"`
	Schema     uint64         `json:"schema"`
	SizeBytes  int64          `json:"size_bytes"`
	Blobs      int            `json:"blobs"`
	// CheckedAt is when it was restored into a temporary place and checked whole; zero where that has not been done.
	CheckedAt time.Time `json:"checked_at,omitzero"`
	// Problem says what that check found, or "".
	Problem string `json:"problem,omitempty"`
}

// Sound reports whether the backup was restored and checked without a finding.
func (b Backup) Sound() bool { return !b.CheckedAt.IsZero() && b.Problem == "" }

// Levels of a finding.
const (
	LevelOK       = "ok"
	LevelWarning  = "warning"
	LevelCritical = "critical"
	// LevelUnknown: it could not be told.
	LevelUnknown = "unknown"
)

// Finding is one thing that doctor looked at.
type Finding struct {
	// Check is a stable name, such as disk, backups, certificate, bmcs.
	Check string `json:"check"`
	Level string `json:"level"` // ok, warning, critical, unknown
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// Doctor is the answer of GET doctor.
type Doctor struct {
	At       time.Time `json:"at"`
	Findings []Finding `json:"findings"`
}

// World is the answer of GET world: what the store believes against what the outside shows.
type World struct {
	At    time.Time           `json:"at"`
	Store fleet.StoreIdentity `json:"store"`
	// Witness is what the log outside says of the store as a whole; WitnessText says why.
	Witness     fleet.Testimony `json:"witness"`
	WitnessText string          `json:"witness_text,omitempty"`
	Freezes     []fleet.Freeze  `json:"freezes,omitempty"`
	// Compared is how many nodes were compared, Agree how many of them agree in everything.
	Compared int `json:"compared"`
	Agree    int `json:"agree"`
	// Nodes are those that differ, or of which it could not be told.
	Nodes []WorldNode `json:"nodes"`
	// Strangers are nodes that the witness names and the store does not know.
	Strangers []string `json:"strangers,omitempty"`
	// NotCompared says what nobody can compare here, and why.
	NotCompared []string `json:"not_compared,omitempty"`
}

// WorldNode is a node whose record and world differ.
type WorldNode struct {
	ID     fleet.NodeID `json:"id"`
	Name   string       `json:"name"`
	State  fleet.State  `json:"state"`
	Frozen bool         `json:"frozen"`
	// Differences are what was seen to differ, Unknown what could not be told and why.
	Differences []Difference `json:"differences,omitempty"`
	Unknown     []string     `json:"unknown,omitempty"`
}

// Difference is one thing in which store and world differ.
type Difference struct {
	// What is boot-generation, handover, power, media, agent or ports.
	What  string `json:"what"`
	Store string `json:"store"`
	World string `json:"world"`
	Text  string `json:"text,omitempty"`
}

// Backups lists the backups that lie on the server, newest first.
func (c *Client) Backups(ctx context.Context) ([]Backup, error) {
	var l List[Backup]
	err := c.get(ctx, Base+"/backups", nil, &l)
	return l.Items, err
}

// MakeBackup has the server make a backup now, and restore and check it.
func (c *Client) MakeBackup(ctx context.Context) (Backup, error) {
	var b Backup
	_, err := c.do(ctx, request{method: http.MethodPost, path: Base + "/backups", extra: time.Hour}, &b)
	return b, err
}

// DownloadBackup writes the archive of a backup to w. The caller compares it with its manifest: a connection that was cut leaves less than all.
func (c *Client) DownloadBackup(ctx context.Context, name string, w io.Writer) error {
	r := request{method: http.MethodGet, path: Base + "/backups/" + url.PathEscape(name) + "/content"}
	res, err := c.send(ctx, r, nil, "")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return c.transportError(ctx, r, err)
	}
	return nil
}

// Doctor reads what the server finds about itself.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	var d Doctor
	_, err := c.do(ctx, request{method: http.MethodGet, path: Base + "/doctor", extra: time.Minute}, &d)
	return d, err
}

// World compares the store with what BMCs, agents and the witness show. It reads every BMC once, and writes nothing.
func (c *Client) World(ctx context.Context) (World, error) {
	var w World
	_, err := c.do(ctx, request{method: http.MethodGet, path: Base + "/world", extra: 10 * time.Minute}, &w)
	return w, err
}
