package api

import (
	"context"
	"net/http"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// Diagnostics is what somebody who helps needs to know of a server's process. Secrets are taken out before it leaves the server.
type Diagnostics struct {
	At       time.Time    `json:"at"`
	Versions Versions     `json:"versions"`
	Process  ProcessStats `json:"process"`
	Store    StoreStats   `json:"store"`
	// Config is the configuration that the server runs with, as YAML, defaults and flags filled in.
	Config string `json:"config"`
	// Log is the end of what the server logged since it started; LogDropped counts the bytes before that which are not kept.
	Log        string `json:"log"`
	LogDropped int64  `json:"log_dropped"`
	// Goroutines are the stacks of all goroutines, equal ones together, then each with how long it has waited, cut where they are too many.
	Goroutines string `json:"goroutines"`
}

// Versions are the versions of a server's parts.
type Versions struct {
	Program string `json:"program"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	System  string `json:"system"`
	Agent   int    `json:"agent_protocol"`
	// Modules are the libraries that the program was built with, by path.
	Modules map[string]string `json:"modules,omitempty"`
}

// ProcessStats is what the server's process uses.
type ProcessStats struct {
	StartedAt  time.Time `json:"started_at"`
	CPUs       int       `json:"cpus"`
	Goroutines int       `json:"goroutines"`
	HeapBytes  int64     `json:"heap_bytes"`
	// OSBytes is what the Go runtime took from the system.
	OSBytes int64 `json:"os_bytes"`
	// OpenFiles counts descriptors; -1 where the system does not tell.
	OpenFiles int `json:"open_files"`
}

// StoreStats is what the store holds.
type StoreStats struct {
	Identity  fleet.StoreIdentity `json:"identity"`
	Schema    uint64              `json:"schema"`
	SizeBytes int64               `json:"size_bytes"`
	// FreeBytes is what the file holds of pages that are used by nothing.
	FreeBytes int64 `json:"free_bytes"`
	// Kinds counts records and their bytes by kind, Blobs the files beside the store and theirs.
	Kinds  map[string]Amount `json:"kinds"`
	Blobs  map[string]Amount `json:"blobs"`
	Events Amount            `json:"events"`
	// Timelines counts the files of the nodes' timelines.
	Timelines Amount `json:"timelines"`
}

// Amount is how many of something there are, and how much room they take.
type Amount struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"`
}

// Diagnostics reads what the server tells of its own process.
func (c *Client) Diagnostics(ctx context.Context) (Diagnostics, error) {
	var d Diagnostics
	_, err := c.do(ctx, request{method: http.MethodGet, path: Base + "/diagnostics", extra: time.Minute}, &d)
	return d, err
}
