package store_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

func at(s int) time.Time { return time.Unix(int64(s), 0).UTC() }

func readTimeline(t *testing.T, db *store.DB, since time.Time, limit int) []fleet.TimelineEntry {
	t.Helper()
	got, err := db.ReadTimeline(context.Background(), "n1", since, limit)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTimelineMergesNeighbours(t *testing.T) {
	db := contract.OpenStore(t)
	for i, e := range []fleet.TimelineEntry{
		{Source: "media", Generation: 1, Offset: 0, Length: 2048, Text: "read"},
		{Source: "media", Generation: 1, Offset: 2048, Length: 2048, Text: "read"},
		{Source: "media", Generation: 1, Offset: 4096, Length: 100, Text: "read"},
		{Source: "media", Generation: 1, Offset: 9000, Length: 100, Text: "a gap"},
		{Source: "media", Generation: 2, Offset: 9100, Length: 100, Text: "another boot"},
		{Source: "image", Generation: 2, Offset: 9200, Length: 100, Text: "another source"},
		{Source: "serial", Generation: 2, Text: "no range"},
		{Source: "serial", Generation: 2, Text: "no range"},
	} {
		e.At = at(i + 1)
		db.AppendTimeline("n1", e)
	}
	want := []fleet.TimelineEntry{
		{At: at(1), Source: "media", Generation: 1, Offset: 0, Length: 4196, Count: 3, Text: "read"},
		{At: at(4), Source: "media", Generation: 1, Offset: 9000, Length: 100, Text: "a gap"},
		{At: at(5), Source: "media", Generation: 2, Offset: 9100, Length: 100, Text: "another boot"},
		{At: at(6), Source: "image", Generation: 2, Offset: 9200, Length: 100, Text: "another source"},
		{At: at(7), Source: "serial", Generation: 2, Text: "no range"},
		{At: at(8), Source: "serial", Generation: 2, Text: "no range"},
	}
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Errorf("in memory: %s", diff)
	}
	if err := db.FlushTimeline(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Errorf("in the file: %s", diff)
	}
	if diff := cmp.Diff(readTimeline(t, db, at(4), 2), want[4:]); diff != "" {
		t.Errorf("the newest two after 4: %s", diff)
	}
	if diff := cmp.Diff(readTimeline(t, db, at(6), 0), want[4:]); diff != "" {
		t.Errorf("after 6: %s", diff)
	}
}

func TestTimelineIsBounded(t *testing.T) {
	dir := t.TempDir()
	db := contract.OpenStoreIn(t, dir, store.Options{Limits: store.Limits{TimelineBytes: 4096}})
	const n = 300
	for i := range n {
		db.AppendTimeline("n1", fleet.TimelineEntry{At: at(i + 1), Source: "serial", Text: fmt.Sprintf("line %d", i)})
		if i%50 == 0 {
			if err := db.FlushTimeline(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.FlushTimeline(); err != nil {
		t.Fatal(err)
	}
	var size int64
	files, _ := filepath.Glob(filepath.Join(dir, "timeline", "n1", "*"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*4096+200 || len(files) > 2 {
		t.Errorf("%d files with %d bytes", len(files), size)
	}
	got := readTimeline(t, db, time.Time{}, 0)
	if len(got) < 40 {
		t.Fatalf("only %d entries are left", len(got))
	}
	for i, e := range got {
		if want := fmt.Sprintf("line %d", n-len(got)+i); e.Text != want {
			t.Fatalf("entry %d is %q, want %q", i, e.Text, want)
		}
	}
}

func TestTimelineAfterACrash(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir)
	db.AppendTimeline("n1", fleet.TimelineEntry{At: at(1), Source: "state", Text: "whole"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "timeline", "n1", "new.jsonl")
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"at":"2026-01-01T00:00:00Z","text":"` + strings.Repeat("h", 5000)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	db = contract.OpenStoreIn(t, dir, store.Options{})
	db.AppendTimeline("n1", fleet.TimelineEntry{At: at(2), Source: "state", Text: "next"})
	if err := db.FlushTimeline(); err != nil {
		t.Fatal(err)
	}
	want := []fleet.TimelineEntry{{At: at(1), Source: "state", Text: "whole"}, {At: at(2), Source: "state", Text: "next"}}
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Error(diff)
	}
}

func TestTimelineForgotten(t *testing.T) {
	dir := t.TempDir()
	db := contract.OpenStoreIn(t, dir, store.Options{})
	db.AppendTimeline("../../evil", fleet.TimelineEntry{At: at(1), Text: "x"})
	db.AppendTimeline("n1", fleet.TimelineEntry{At: at(1), Text: "x"})
	if err := db.FlushTimeline(); err != nil {
		t.Fatal(err)
	}
	db.AppendTimeline("n1", fleet.TimelineEntry{At: at(2), Text: "y"})
	if err := db.ForgetTimeline("n1"); err != nil {
		t.Fatal(err)
	}
	if got := readTimeline(t, db, time.Time{}, 0); len(got) != 0 {
		t.Errorf("forgotten, and yet %v", got)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "timeline")); err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	_, err := db.ReadTimeline(context.Background(), "../../evil", time.Time{}, 0)
	wantCode(t, err, fleet.NotFound, "MC-STORE-ABSENT")
}

func TestTimelineCountsRepeats(t *testing.T) {
	dir := t.TempDir()
	db := contract.OpenStoreIn(t, dir, store.Options{})
	get := func(second int, uri string) {
		db.AppendTimeline("n1", fleet.TimelineEntry{At: at(second), Source: "redfish", Text: fmt.Sprintf("GET %s in %d ms", uri, second), Same: uri})
	}
	flush := func() {
		t.Helper()
		if err := db.FlushTimeline(); err != nil {
			t.Fatal(err)
		}
	}
	once := func(second int, uri string) fleet.TimelineEntry {
		return fleet.TimelineEntry{At: at(second), Source: "redfish", Text: fmt.Sprintf("GET %s in %d ms", uri, second)}
	}
	again := func(from, until, count int, uri string) fleet.TimelineEntry {
		return fleet.TimelineEntry{At: at(from), Until: at(until), Count: count, Source: "redfish", Text: fmt.Sprintf("GET %s in %d ms", uri, until)}
	}
	get(1, "/a")
	flush()
	get(2, "/a")
	flush()
	get(3, "/a")
	want := []fleet.TimelineEntry{once(1, "/a"), again(2, 3, 2, "/a")}
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Errorf("while it goes on: %s", diff)
	}
	if diff := cmp.Diff(readTimeline(t, db, at(2), 0), want[1:]); diff != "" {
		t.Errorf("what began before and went on is left out: %s", diff)
	}
	get(4, "/b")
	get(5, "/b")
	db.AppendTimeline("n1", fleet.TimelineEntry{At: at(6), Source: "redfish", Text: "POST /b"})
	get(7, "/b")
	want = append(want, once(4, "/b"), again(5, 5, 1, "/b"), fleet.TimelineEntry{At: at(6), Source: "redfish", Text: "POST /b"}, once(7, "/b"))
	flush()
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Errorf("others between: %s", diff)
	}
	for i := range 61 {
		get(8+i, "/b")
	}
	want = append(want, again(8, 67, 60, "/b"), again(68, 68, 1, "/b"))
	if diff := cmp.Diff(readTimeline(t, db, time.Time{}, 0), want); diff != "" {
		t.Errorf("after many: %s", diff)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readTimeline(t, contract.OpenStoreIn(t, dir, store.Options{}), time.Time{}, 0), want); diff != "" {
		t.Errorf("after a restart: %s", diff)
	}
}
