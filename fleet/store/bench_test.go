package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/metalctl/metalctl/fixtures/contract"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/store"
)

const (
	benchWriters = 64
	benchNodes   = 4000
)

func benchNode(i int) fleet.Node {
	id := fleet.NodeID(fmt.Sprintf("0199a000-0000-7000-8000-%012d", i))
	n := fleet.Node{ID: id, Name: fmt.Sprintf("hgx-%05d", i), Class: "hgx-h200", Labels: map[string]string{"rack": "r1", "rail_group": "a"},
		BMC:   fleet.BMC{Address: fmt.Sprintf("https://10.0.%d.%d", i/250, i%250), User: "admin", TLS: fleet.BMCTLS{Pin: "sha256/" + strings.Repeat("A", 43) + "="}, Vendor: "Example", Model: "H200", Serial: fmt.Sprintf("S%08d", i)},
		State: fleet.Enrolled, Dirty: fleet.DirtyUnknown, StateSince: time.Unix(1, 0).UTC(), CreatedAt: time.Unix(1, 0).UTC()}
	for p := range 12 {
		n.Ports = append(n.Ports, fleet.Port{MAC: fleet.MAC(fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>8&255, i&255, p)), Role: "tenant", Switch: "leaf-1", Port: "swp1"})
	}
	return n
}

// create is what enrolling one node commits: the record, its unique names, the BMC's password and an event.
func create(i int) fleet.Change {
	n := benchNode(i)
	key := fleet.KeyOf(fleet.KindNode, n.ID)
	name := fleet.Key("unique/node-name/" + n.Name)
	address := fleet.Key("unique/bmc-address/" + n.BMC.Address)
	return fleet.Change{
		If: []fleet.Precondition{{Key: key}, {Key: name}, {Key: address}},
		Writes: []fleet.Write{{Key: key, Value: n}, {Key: name, Value: n.ID}, {Key: address, Value: n.ID},
			{Key: fleet.KeyOf(fleet.KindSecret, n.ID), Value: fleet.NewSecret("correct horse battery staple")}},
		Events: []fleet.Event{{Type: "node.created", Subject: key, Node: n.ID, Text: "enrolled " + n.Name}},
	}
}

// spread runs work 0..n-1 on so many writers and returns how many a second.
func spread(tb testing.TB, n int, work func(int) error) float64 {
	tb.Helper()
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range n {
			next <- i
		}
	}()
	var wg sync.WaitGroup
	start := time.Now()
	for range benchWriters {
		wg.Go(func() {
			for i := range next {
				if err := work(i); err != nil {
					tb.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// rawPut is the least that a durable, group-committed put can cost: one bbolt transaction for whatever waits, one put each.
func rawPut(tb testing.TB, dir string, n int) float64 {
	tb.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "raw.db"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, InitialMmapSize: 256 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	type req struct {
		key, value []byte
		done       chan error
	}
	queue := make(chan req, 256)
	go func() {
		for first := range queue {
			batch := []req{first}
			for more := true; more; {
				select {
				case r, ok := <-queue:
					if more = ok; ok {
						batch = append(batch, r)
					}
				default:
					more = false
				}
			}
			err := db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("b"))
				for _, r := range batch {
					if err == nil {
						err = b.Put(r.key, r.value)
					}
				}
				return err
			})
			for _, r := range batch {
				r.done <- err
			}
		}
	}()
	defer close(queue)
	return spread(tb, n, func(i int) error {
		value, err := json.Marshal(benchNode(i))
		if err != nil {
			return err
		}
		r := req{fmt.Appendf(nil, "node/%d", i), value, make(chan error, 1)}
		queue <- r
		return <-r.done
	})
}

// TestBench compares a durable node create with a raw group-committed put by as many writers, and prints what 1,000 stored nodes weigh.
// It asserts nothing: METALCTL_BENCH=1 go test -run TestBench -v ./fleet/store
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1 to measure")
	}
	var ratios []float64
	for round := range 3 {
		raw := rawPut(t, t.TempDir(), benchNodes)
		db := mustOpen(t, t.TempDir())
		ours := spread(t, benchNodes, func(i int) error {
			_, err := db.Commit(context.Background(), create(i))
			return err
		})
		db.Close()
		ratios = append(ratios, ours/raw)
		fmt.Printf("store: round %d, %d writers: raw put %.0f/s, node create (4 records, 1 event) %.0f/s, ratio %.2f\n", round+1, benchWriters, raw, ours, ours/raw)
	}
	slices.Sort(ratios)
	fmt.Printf("store: ratio of a durable node create to a raw put, median of %d: %.2f\n", len(ratios), ratios[len(ratios)/2])
	memory(t)
}

func memory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	dir := t.TempDir()
	db := mustOpen(t, dir)
	spread(t, 1000, func(i int) error {
		_, err := db.Commit(context.Background(), create(i))
		return err
	})
	used := heap()
	info, err := os.Stat(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("store: 1,000 nodes: heap %+.1f MiB, file %.1f MiB\n", (float64(used)-float64(before))/(1<<20), float64(info.Size())/(1<<20))
	runtime.KeepAlive(db)
}

func BenchmarkNodeCreate(b *testing.B) {
	db, err := store.Open(b.TempDir(), store.Options{Key: contract.TestKey()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	b.ReportMetric(spread(b, b.N, func(i int) error {
		_, err := db.Commit(context.Background(), create(i))
		return err
	}), "creates/s")
}

func BenchmarkRawPut(b *testing.B) { b.ReportMetric(rawPut(b, b.TempDir(), b.N), "puts/s") }
