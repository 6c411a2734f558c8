package inspect

import (
	"context"
	"encoding/json"
	"os/exec"
	"strconv"
	"testing"
)

// The referees are util-linux: lscpu and lsblk read the same machine in their own way.

func TestCPUsAgreeWithLscpu(t *testing.T) {
	out := referee(t, "lscpu", "--json", "--extended=CPU,SOCKET,CORE,ONLINE")
	var table struct {
		CPUs []struct {
			CPU    json.RawMessage `json:"cpu"`
			Socket json.RawMessage `json:"socket"`
			Core   json.RawMessage `json:"core"`
		} `json:"cpus"`
	}
	if err := json.Unmarshal(out, &table); err != nil {
		t.Fatalf("lscpu: %v in %s", err, out)
	}
	sockets, cores := map[string]bool{}, map[string]bool{}
	for _, c := range table.CPUs {
		sockets[string(c.Socket)] = true
		cores[string(c.Socket)+"/"+string(c.Core)] = true
	}
	inv := read(t, Options{Only: []string{PartCPU}})
	gotCores, gotThreads := 0, 0
	for _, c := range inv.CPUs {
		gotCores += c.Cores
		gotThreads += c.Threads
	}
	if len(inv.CPUs) != len(sockets) || gotCores != len(cores) || gotThreads != len(table.CPUs) {
		t.Errorf("%d sockets, %d cores, %d threads; lscpu says %d, %d, %d", len(inv.CPUs), gotCores, gotThreads, len(sockets), len(cores), len(table.CPUs))
	}
}

func TestDisksAgreeWithLsblk(t *testing.T) {
	out := referee(t, "lsblk", "--json", "--bytes", "--nodeps", "--exclude", "1,7", "--output", "NAME,SIZE,TYPE,RO,ROTA,RM,LOG-SEC,SERIAL")
	var table struct {
		Devices []struct {
			Name   string          `json:"name"`
			Size   json.RawMessage `json:"size"`
			Type   string          `json:"type"`
			RO     bool            `json:"ro"`
			Rota   bool            `json:"rota"`
			RM     bool            `json:"rm"`
			Sector json.RawMessage `json:"log-sec"`
		} `json:"blockdevices"`
	}
	if err := json.Unmarshal(out, &table); err != nil {
		t.Fatalf("lsblk: %v in %s", err, out)
	}
	inv := read(t, Options{Only: []string{PartDisk}})
	seen := 0
	for _, want := range table.Devices {
		if want.Type != "disk" || len(want.Name) > 4 && want.Name[:4] == "zram" {
			continue
		}
		seen++
		found := false
		for _, d := range inv.Disks {
			if d.Name != want.Name {
				continue
			}
			found = true
			if number(t, want.Size) != d.SizeBytes || number(t, want.Sector) != int64(d.BlockBytes) || d.ReadOnly != want.RO || d.Rotational != want.Rota || d.Removable != want.RM {
				t.Errorf("%+v; lsblk says %+v", d, want)
			}
		}
		if !found {
			t.Errorf("%s is not in the inventory", want.Name)
		}
	}
	if seen != len(inv.Disks) {
		t.Errorf("%d disks, lsblk says %d", len(inv.Disks), seen)
	}
}

// number reads what some versions of util-linux quote and others do not.
func number(t *testing.T, raw json.RawMessage) int64 {
	t.Helper()
	text := string(raw)
	if s, err := strconv.Unquote(text); err == nil {
		text = s
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func referee(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed (Debian package util-linux)", name)
	}
	out, err := exec.CommandContext(context.Background(), name, args...).Output()
	if err != nil {
		t.Skipf("%s: %v", name, err)
	}
	return out
}
