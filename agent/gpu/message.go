package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/metalctl/metalctl/fleet"
)

// Limits of what is believed of a child. A GPU with 18 links has about 6 KiB.
const (
	maxLine     = 256 << 10
	maxMessages = 4096
	maxText     = 2048
)

// request is one line on the child's standard input; a child gets one that opens something, and the survey's child then one more. The end of the input ends
// the child, even if a call hangs.
type request struct {
	// Library is opened by the first request.
	Library string `json:"library,omitempty"`
	// Survey asks for what concerns the machine. PCI or Index ask for one GPU; Index counts from 1 here, so that 0 is none.
	Survey bool   `json:"survey,omitempty"`
	PCI    string `json:"pci,omitempty"`
	Index  int    `json:"index,omitempty"`
	// Peers are the addresses of GPUs that are to be asked how they reach each other: Over NVLink, or else by PCIe.
	Peers  []string `json:"peers,omitempty"`
	NVLink bool     `json:"nvlink,omitempty"`
	// Clean has the GPU of PCI put back.
	Clean *fleet.CleanGPUs `json:"clean,omitempty"`
	// Load, Run and Words are for a child that loads GPUs, in this order. Stop ends what Run began; it is heeded at once, and not answered.
	Load  *loadRequest  `json:"load,omitempty"`
	Run   *runRequest   `json:"run,omitempty"`
	Words *wordsRequest `json:"words,omitempty"`
	Stop  bool          `json:"stop,omitempty"`
	// Sample asks for the values of the GPU of PCI that change all the time.
	Sample bool `json:"sample,omitempty"`
}

// message is one line on the child's standard output: exactly one field is set, besides At.
type message struct {
	// Call is the function that is called next: the parent's clock starts, and a child that dies now died in it.
	Call string `json:"call,omitempty"`
	// At is the GPU that Call is for, where a child has several.
	At string `json:"at,omitempty"`
	// Survey and GPU are whole pictures of what is known so far; the last one counts.
	Survey  *survey                      `json:"survey,omitempty"`
	GPU     *fleet.GPU                   `json:"gpu,omitempty"`
	Peers   map[string]map[string]string `json:"peers,omitempty"`
	Cleaned *fleet.GPUCleaned            `json:"cleaned,omitempty"`
	Missing *fleet.Missing               `json:"missing,omitempty"`
	Ready   *ready                       `json:"ready,omitempty"`
	Load    *loadReport                  `json:"load,omitempty"`
	Words   *tileWordsOf                 `json:"words,omitempty"`
	Sample  *sample                      `json:"sample,omitempty"`
	// Failed ends an answer: nothing could be opened.
	Failed *failure `json:"failed,omitempty"`
	// Done ends an answer.
	Done bool `json:"done,omitempty"`
}

// survey is what NVIDIA's library says of the machine.
type survey struct {
	Driver       fleet.GPUDriver `json:"driver"`
	GPUs         int             `json:"gpus"`
	Confidential string          `json:"confidential,omitempty"`
}

// Kinds of failure: each is another finding.
const (
	failLibrary  = "library"   // there is none
	failDriver   = "driver"    // the library is there, its driver is not loaded
	failMismatch = "mismatch"  // they are of different versions
	failSymbol   = "symbol"    // the library is too old to be spoken to
	failLost     = "lost"      // GPU is lost
	failNotFound = "not-found" // the driver has no such GPU
	failOther    = "other"
)

type failure struct {
	Kind string `json:"kind"`
	Why  string `json:"why"`
}

// decodeMessage reads a line of a child. A child is not trusted: it runs somebody else's library.
func decodeMessage(line []byte) (message, error) {
	var m message
	if len(line) > maxLine {
		return m, fmt.Errorf("a line of %d bytes", len(line))
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return m, fmt.Errorf("no message: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return m, errors.New("more than a message in one line")
	}
	set := 0
	for _, there := range []bool{m.Call != "", m.Survey != nil, m.GPU != nil, m.Peers != nil, m.Cleaned != nil, m.Missing != nil, m.Ready != nil, m.Load != nil, m.Words != nil, m.Sample != nil, m.Failed != nil, m.Done} {
		if there {
			set++
		}
	}
	if set != 1 {
		return m, fmt.Errorf("a message with %d parts", set)
	}
	if err := plain(line); err != nil {
		return m, err
	}
	if g := m.GPU; g != nil && (g.Index < 0 || g.Index > 255 || len(g.NVLinks) > 64 || len(g.Processes) > 4096) {
		return m, errors.New("a GPU that cannot be")
	}
	if c := m.Cleaned; c != nil && (c.Index < -1 || c.Index > 255 || len(c.Settings) > 64 || len(c.Faults) > 4096) {
		return m, errors.New("a cleaned GPU that cannot be")
	}
	if m.At != "" && (m.Call == "" || len(m.At) > 32) {
		return m, errors.New("a place without a call")
	}
	if m.Load != nil {
		if err := m.Load.check(); err != nil {
			return m, err
		}
	}
	if s := m.Survey; s != nil && (s.GPUs < 0 || s.GPUs > 255) {
		return m, fmt.Errorf("%d GPUs", s.GPUs)
	}
	if m.Call != "" && strings.Trim(m.Call, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		return m, errors.New("a call that is no function")
	}
	return m, nil
}

// simple reports whether a line is of printable ASCII without escapes, with no text that is too long: nearly all are.
func simple(line []byte) bool {
	run := 0
	for _, b := range line {
		switch run++; {
		case b < ' ' || b > '~' || b == '\\' || run > maxText:
			return false
		case b == '"':
			run = 0
		}
	}
	return true
}

// plain refuses texts that are long or not printable.
func plain(line []byte) error {
	if simple(bytes.TrimSuffix(line, []byte("\n"))) {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("no message: %w", err)
		}
		if s, ok := t.(string); ok && (len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar })) {
			return errors.New("a text that is too long or not printable")
		}
	}
}
