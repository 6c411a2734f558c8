package standby

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
)

// speech is a stream with one message of each kind.
func speech(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	at := fleet.Position{Epoch: "e", Revision: 7, Chain: strings.Repeat("ab", chainSize)}
	err := errors.Join(writeJSON(&b, kindHello, hello{Format: format, Epoch: "e", Copy: true}), writeMessage(&b, kindChunk, []byte("pages")),
		writeJSON(&b, kindDone, done{SizeBytes: 5, SHA256: "x", Position: at}), writeEntry(&b, fleet.LogEntry{File: "blobs/evidence/ab/abc"}),
		writeEntry(&b, fleet.LogEntry{Batch: []byte("a batch"), Chain: at.Chain}), writeJSON(&b, kindTick, tick{Position: at}), writeJSON(&b, kindEnd, tick{Position: at}))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func kindsOf(text []byte) (kinds string, err error) {
	r := bufio.NewReader(bytes.NewReader(text))
	for {
		m, err := readMessage(r)
		if err != nil {
			return kinds, err
		}
		kinds += string(m.kind)
	}
}

func TestMessages(t *testing.T) {
	text := speech(t)
	kinds, err := kindsOf(text)
	if kinds != "hcdfbtx" || err != io.EOF {
		t.Fatalf("read %q, %v", kinds, err)
	}
	r := bufio.NewReader(bytes.NewReader(text))
	for {
		m, err := readMessage(r)
		if err != nil {
			t.Fatal(err)
		}
		if m.kind == kindBatch {
			want := fleet.LogEntry{Batch: []byte("a batch"), Chain: strings.Repeat("ab", chainSize)}
			if d := cmp.Diff(m.entry, want); d != "" {
				t.Error(d)
			}
			break
		}
	}
	ends := map[int]bool{0: true}
	for i := 0; i < len(text); {
		i += 5 + int(text[i+1])<<24 + int(text[i+2])<<16 + int(text[i+3])<<8 + int(text[i+4])
		ends[i] = true
	}
	for i := range text {
		_, err := kindsOf(text[:i])
		if ends[i] != (err == io.EOF) || err == nil {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(speech(f))
	f.Add([]byte("b\xff\xff\xff\xff"))
	f.Add([]byte("h\x00\x00\x00\x02{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := bufio.NewReader(bytes.NewReader(text))
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if m.kind == kindBatch && (len(m.entry.Batch) == 0 || len(m.entry.Chain) != 2*chainSize) || m.kind == kindFile && m.entry.File == "" {
				t.Fatalf("%+v", m)
			}
		}
	})
}
