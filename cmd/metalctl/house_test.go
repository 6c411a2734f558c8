//go:build !ramdisk

package main

import (
	"bufio"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

const module = "github.com/metalctl/metalctl"

// arrows says which rooms a room may know besides itself and the vocabulary (fleet, fleet/step), and why. A trailing /... means all below.
var arrows = []struct {
	room, may, why string
}{
	{"cmd/metalctl", "...", "main introduces strangers"},
	{"fleet", "", "the vocabulary knows nobody"},
	{"fleet/step", "", "steps are vocabulary, too"},
	{"fleet/api", "fleet/topology fleet/term", "wire types and the client speak the vocabulary; a layout is an answer, and so is a term"},
	{"fleet/store", "", "the store keeps the vocabulary's records"},
	{"fleet/verdict", "", "judges the vocabulary's inventories, and does nothing else"},
	{"fleet/cleaning", "fleet/verdict", "composes a record of the journal; GPUs have one name, and firmware is compared once"},
	{"fleet/topology", "", "draws the vocabulary's inventories, and does nothing else"},
	{"fleet/allocate", "", "chooses among nodes that it is given, and does nothing else"},
	{"fleet/reach", "", "judges what was observed, and does nothing else"},
	{"fleet/switchboard", "fleet/api fleet/reach", "answers in the API's words, and asks of what it read who reaches whom"},
	{"fleet/report", "fleet/topology", "draws the vocabulary's reports; the picture of a machine is drawn in one place"},
	{"fleet/standby", "fleet/api", "two servers speak the API to each other; the store is what it asks of one"},
	{"fleet/reconcile", "fleet/allocate fleet/api fleet/cleaning fleet/verdict", "the engine answers in the API's words, has nodes chosen, an inspection ends with a verdict, and a cleaning with its record"},
	{"fleet/arbiter", "fleet/api fleet/term", "answers questions about the term, in the API's errors"},
	{"fleet/term", "", "who may act is judged without knowing servers, stores or networks"},
	{"fleet/server", "fleet/api fleet/verdict fleet/topology fleet/report", "the server answers the API, also with what differs and with pictures"},
	{"fleet/witness", "", "the witness speaks the vocabulary, and knows no store but by what it asks of one"},
	{"agent", "fleet/api agent/disk agent/efi agent/inspect agent/boot images images/configdrive images/pack", "the agent's steps are done by its rooms; one decoder for server and agent"},
	{"agent/boot", "", ""},
	{"agent/inspect", "agent/kmsg agent/sysfs", "an inventory has what the kernel's log says; there is one reader of the log, and one of attributes"},
	{"agent/gpu", "agent/gpu/cuda agent/sysfs", "alone with the vendors' libraries; main hands it to the readers"},
	{"agent/gpu/cuda", "", "kernels and the library that runs them know no machine"},
	{"agent/kmsg", "", ""},
	{"agent/burn", "agent/disk agent/kmsg agent/sysfs", "watches what the kernel tells while it stresses; one way to open a disk past the cache; GPUs and the reading of the machine are handed in by main"},
	{"agent/rdma", "agent/sysfs", "one reader of attributes"},
	{"agent/sysfs", "", ""},
	{"agent/disk", "images", "one decoder of images for server and agent"},
	{"agent/efi", "", ""},
	{"redfish", "redfish/quirk", "the client reads its table"},
	{"redfish/quirk", "", ""},
	{"redfish/hgx", "", "reads resources by an interface of its own; main hands it the client"},
	{"provision/vmedia", "", ""},
	{"provision/probe", "", "sends and hears frames; who shall hear them is handed in"},
	{"provision/fabric", "", "asks devices; what is done with the answers is others' business"},
	{"provision/fabric/opensm", "provision/fabric", "reads back by the fabric's devices what it has a subnet manager write"},
	{"provision/fabric/ufm", "provision/fabric", "keeps two changes of one fabric apart by the lock that every driver of fabrics takes"},
	{"provision/ethernet/nvue", "", "speaks to switches; what they shall do is the vocabulary's"},
	{"provision/ethernet", "", "decides what is written on a switch; what speaks to it is handed in"},
	{"provision/ethernet/ssh", "", "reaches a switch; what is said there is others' business"},
	{"provision/ethernet/netconf", "provision/ethernet provision/ethernet/ssh", "speaks to switches in the order that all drivers keep, by one way to reach them"},
	{"provision/ethernet/cli", "provision/ethernet provision/ethernet/ssh", "speaks to switches in the order that all drivers keep, by one way to reach them"},
	{"provision/ethernet/ovs", "", "speaks to one switch; who may be where is decided by others"},
	{"images", "", ""},
	{"images/ramdisk", "", ""},
	{"images/configdrive", "", ""},
	{"images/pack", "", ""},
	{"fixtures/bmc", "fixtures/bmc/...", "the emulator's parts"},
	{"fixtures/bmc/...", "fixtures/bmc/...", "the emulator's parts"},
	{"fixtures/rack", "fixtures/bmc fixtures/cuda fixtures/nvml fixtures/profiles fixtures/wires fixtures/wires/vswitch images/pack images/ramdisk", "a rack is made of emulated BMCs that read real media, of machines that are not there, which travel in the archives of packs, of a fabric and of switches"},
	{"fixtures/sick", "agent/burn fixtures/profiles", "parts that are not there, for the real stressors; what is wrong with them stands in a machine's folder"},
	{"fixtures/profiles", "fixtures/nvml", "machines that are not there, as data; what their GPUs answer is composed there"},
	{"fixtures/herd", "agent fleet/api", "many light machines that run the real agent's protocol"},
	{"fixtures/contract", "...", "contract tests drive what they test"},
	{"fixtures/wires", "provision/fabric provision/fabric/opensm", "simulated fabrics are watched by the code that watches real ones, and the emulated subnet manager reads as the model does"},
	{"fixtures/wires/vswitch", "fixtures/wires", "a real switch with the hosts at its ports has the faults that every device for tests has"},
	{"fixtures/nvml", "", "a library and its file stand alone"},
	{"fixtures/cuda", "fixtures/nvml", "a second library that answers from the same file"},
	{"fixtures/cuda/build", "fixtures/cuda", "compiles the library for embedding"},
	{"fixtures/nvml/build", "fixtures/nvml", "compiles the library for embedding"},
	{"fixtures/reports", "", "reports that never were, of the vocabulary alone"},
	{"fixtures/virtual", "fleet/api fleet/reconcile fleet/switchboard provision/vmedia", "the real engine, switchboard and boot driver in a simulated world"},
	{"scripts/...", "", "build helpers stand alone"},
	{"test/...", "", "stories run the built program from outside"},
}

// technologies stay in the room named for them, so that replacing one touches one folder.
var technologies = []struct{ pkg, rooms string }{
	{"github.com/stmcginnis/gofish", "redfish"},
	{"go.etcd.io/bbolt", "fleet/store"},
	{"github.com/vishvananda/netlink", "agent/boot agent/inspect agent/rdma fixtures/rack fixtures/wires/vswitch"},
	{"github.com/Mellanox/rdmamap", "agent/rdma"},
	{"github.com/insomniacslk/dhcp", "agent/boot fixtures/rack provision/dhcp"},
	{"github.com/spf13/cobra", "cmd/metalctl"},
	{"github.com/danielgtaylor/huma/v2", "fleet/server"},
	{"github.com/prometheus/client_golang", "fleet/server"},
	{"github.com/foxboron/go-uefi", "images/ramdisk"},
	{"github.com/lima-vm/go-qcow2reader", "images"},
	{"github.com/NVIDIA/go-nvml", "agent/gpu"},
	{"github.com/mdlayher/packet", "agent/inspect agent/boot"},
	{"golang.org/x/crypto/ssh", "provision/ethernet/ssh"},
}

// programs may be run here only.
var runsPrograms = []struct{ room, why string }{
	{"cmd/metalctl", "sim and demo start a server and process agents"},
	{"fixtures/...", "QEMU, process agents and network namespaces"},
	{"agent/gpu", "a child of this program opens NVIDIA's library, as it may hang or crash"},
	{"agent/boot", "a shell on the serial console after a panic, where the node's policy allows it"},
	{"scripts/...", "build helpers"},
	{"test/...", "stories run the built program from outside"},
}

type goPackage struct {
	ImportPath, Dir, Doc string
	GoFiles, Imports     []string
	TestGoFiles          []string
}

func housePackages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Imports,TestGoFiles", module+"/...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p goPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found only %d packages", len(pkgs))
	}
	return pkgs
}

func room(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// within matches a room against a pattern that may end in /... .
func within(room, pattern string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return room == base || strings.HasPrefix(room, base+"/")
	}
	return room == pattern
}

func TestHouseArrows(t *testing.T) {
	for _, p := range housePackages(t) {
		from := room(p.ImportPath)
		i := slices.IndexFunc(arrows, func(a struct{ room, may, why string }) bool { return within(from, a.room) })
		if i < 0 {
			t.Errorf("room %s stands in no row of the import table", from)
			continue
		}
		for _, imp := range p.Imports {
			if tech := slices.IndexFunc(technologies, func(x struct{ pkg, rooms string }) bool {
				return imp == x.pkg || strings.HasPrefix(imp, x.pkg+"/")
			}); tech >= 0 && !strings.HasPrefix(from, "fixtures/") && !slices.Contains(strings.Fields(technologies[tech].rooms), from) {
				t.Errorf("%s imports %s, which belongs to %s", from, imp, technologies[tech].rooms)
			}
			if !strings.HasPrefix(imp, module) {
				continue
			}
			to := room(imp)
			if to == "fleet" || to == "fleet/step" {
				if from == "fleet" {
					t.Errorf("fleet imports %s: the vocabulary knows nobody", to)
				}
				continue
			}
			if !slices.ContainsFunc(strings.Fields(arrows[i].may), func(m string) bool { return within(to, m) }) {
				t.Errorf("%s imports %s; its row allows %q", from, to, arrows[i].may)
			}
			if strings.HasPrefix(to, "fixtures/") && from != "cmd/metalctl" && !strings.HasPrefix(from, "fixtures/") {
				t.Errorf("%s imports %s: fixtures are for tests and for sim", from, to)
			}
		}
	}
}

func TestHouseNames(t *testing.T) {
	banned := regexp.MustCompile(`^(utils?|common|helpers?|base|core|managers?|types|models?|pkg|internal|misc)$`)
	for _, p := range housePackages(t) {
		for _, part := range strings.Split(room(p.ImportPath), "/") {
			if banned.MatchString(part) {
				t.Errorf("room %s is named after nothing", room(p.ImportPath))
			}
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("room %s has no package comment", room(p.ImportPath))
		}
		if strings.Contains(p.Doc, "and various") {
			t.Errorf("room %s cannot say what it is in one sentence", room(p.ImportPath))
		}
	}
}

func houseFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestHouseFiles(t *testing.T) {
	undone := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|not imple` + `mented`)
	for _, path := range houseFiles(t) {
		name := strings.TrimPrefix(path, "../../")
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for s := bufio.NewScanner(f); s.Scan(); {
			lines++
			if undone.MatchString(s.Text()) {
				t.Errorf("%s:%d: left undone: %s", name, lines, strings.TrimSpace(s.Text()))
			}
		}
		f.Close()
		if lines > 500 {
			t.Errorf("%s has %d lines; split it", name, lines)
		}
	}
}

func TestHouseSource(t *testing.T) {
	fset := token.NewFileSet()
	codes := regexp.MustCompile(`"(MC-[A-Z0-9-]*[A-Z0-9])"`)
	for _, path := range houseFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		name := strings.TrimPrefix(path, "../../")
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: func init does work at import", name)
			}
		}
		dir := filepath.Dir(name)
		for _, imp := range file.Imports {
			if imp.Path.Value == `"os/exec"` && !slices.ContainsFunc(runsPrograms, func(r struct{ room, why string }) bool { return within(dir, r.room) }) {
				t.Errorf("%s runs programs; its room has no row for that", name)
			}
		}
		if strings.HasPrefix(dir, "fixtures") {
			continue
		}
		for _, m := range codes.FindAllStringSubmatch(string(src), -1) {
			if strings.HasPrefix(name, "fleet/codes") || strings.HasSuffix(m[1], "-") {
				continue
			}
			if _, ok := fleet.Codes[m[1]]; !ok {
				t.Errorf("%s uses code %s, which has no page in fleet.Codes", name, m[1])
			}
		}
	}
}
