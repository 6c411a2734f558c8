package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/metalctl/metalctl/agent/disk"
	"github.com/metalctl/metalctl/agent/inspect"
	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

const mib = 1 << 20

// lab is a machine of plain files with a running agent.
type lab struct {
	t     *testing.T
	f     *fakeServer
	deps  Deps
	root  string
	disks []inspect.FileDisk
	index int
	size  int64
}

// newLab makes a machine with disks of that size, with old data on them.
func newLab(t *testing.T, size int64, serials ...string) *lab {
	t.Helper()
	l := &lab{t: t, f: newFakeServer(t), root: t.TempDir(), size: size}
	for _, s := range serials {
		l.disks = append(l.disks, inspect.FileDisk{Path: l.file(s, size), Serial: s, Model: "FILE"})
	}
	home := &Home{}
	l.deps = Deps{
		Home: home, Inspect: inspect.Options{Root: l.root}, OriginAllow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Disks: func(context.Context) ([]fleet.Disk, error) { return inspect.FileDisks(l.disks) },
	}
	return l
}

// run starts the agent; deps may be changed before.
func (l *lab) run() {
	l.t.Helper()
	cfg := config(l.f, Steps(l.deps))
	cfg.Home = l.deps.Home
	start(l.t, cfg)
}

// file makes a sparse file with old data at both ends and in the middle.
func (l *lab) file(name string, size int64) string {
	l.t.Helper()
	p := filepath.Join(l.t.TempDir(), name)
	f, err := os.Create(p)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		l.t.Fatal(err)
	}
	for _, off := range []int64{0, size / 2, size - 4096} {
		if _, err := f.WriteAt(bytes.Repeat([]byte("the last tenant's secret "), 160), off); err != nil {
			l.t.Fatal(err)
		}
	}
	return p
}

func (l *lab) accepted(serials ...string) (out []fleet.AcceptedDevice) {
	for _, s := range serials {
		out = append(out, fleet.AcceptedDevice{Serial: s, Model: "FILE", SizeBytes: l.size})
	}
	return out
}

// do hands one task out and returns its result.
func (l *lab) do(name string, params any) api.Result {
	l.t.Helper()
	l.index++
	l.f.push(api.Task{Operation: "op", Index: l.index, Try: 1, Step: name, Params: json.RawMessage(mustJSON(l.t, params)), LimitSeconds: 600})
	return receive(l.t, l.f.results, "result of "+name)
}

// ok is do for a step that must succeed; it returns the evidence.
func (l *lab) ok(name string, params any) map[string]any {
	l.t.Helper()
	r := l.do(name, params)
	if r.Error != nil {
		l.t.Fatalf("%s: %s: %s", name, r.Error.Code, r.Error.Detail)
	}
	out := map[string]any{}
	if err := json.Unmarshal(r.Evidence, &out); err != nil {
		l.t.Fatalf("evidence %s: %v", r.Evidence, err)
	}
	return out
}

func (l *lab) content(i int) []byte {
	l.t.Helper()
	b, err := os.ReadFile(l.disks[i].Path)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// bootable makes the raw contents of a UEFI image of 48 MiB with Debian's own tools.
func bootable(t *testing.T) []byte {
	t.Helper()
	for _, tool := range []string{"sgdisk", "mformat", "mmd", "mcopy"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed (Debian packages gdisk and mtools)", tool)
		}
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		if out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	img, loader := file("disk.raw", make([]byte, 48*mib)), file("loader", []byte("MZ is how it begins"))
	run("sgdisk", "-n", "1:2048:67583", "-t", "1:ef00", "-n", "2:67584:0", "-t", "2:8300", img)
	esp := fmt.Sprintf("%s@@1M", img)
	run("mformat", "-i", esp, "-T", "65536", "-h", "16", "-s", "63", "::")
	run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT")
	run("mcopy", "-i", esp, loader, "::/EFI/BOOT/BOOTX64.EFI")
	b, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[40*mib:], bytes.Repeat([]byte("root file system "), 1000))
	return b
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(b, nil)
}

func TestAMachineIsErasedAndDeployed(t *testing.T) {
	if testing.Short() {
		t.Skip("erases and writes some hundred MiB")
	}
	raw := bootable(t)
	file := packed(t, raw)
	l := newLab(t, 160*mib, "A", "B")
	l.f.images = map[string][]byte{"debian": file}
	efivars := filepath.Join(l.root, "sys/firmware/efi/efivars")
	if err := os.MkdirAll(efivars, 0o755); err != nil {
		t.Fatal(err)
	}
	// BootOrder with one entry of somebody else, whose variable is absent as some firmware has it.
	if err := os.WriteFile(filepath.Join(efivars, "BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c"), []byte{7, 0, 0, 0, 2, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	l.run()

	inv := l.do(step.Inventory, nil)
	var got fleet.Inventory
	if err := json.Unmarshal(inv.Attachment, &got); err != nil || len(got.Disks) != 2 || got.Disks[0].Serial != "A" {
		t.Fatalf("inventory = %s, %v", inv.Attachment, err)
	}

	clean := step.EraseParams{Accepted: l.accepted("A", "B"), Level: "clear"}
	if r := l.do(step.VerifyErase, clean); r.Error == nil || len(r.Error.Faults) != 2 || r.Error.Faults[0].Code != "MC-FAULT-DATA-LEFT" {
		t.Errorf("full disks pass for erased: %s", mustJSON(t, r))
	}
	l.ok(step.EraseDisks, clean)
	l.ok(step.VerifyErase, clean)
	for i := range l.disks {
		if bytes.Count(l.content(i), []byte{0}) != 160*mib {
			t.Errorf("disk %d is not zero", i)
		}
	}
	l.ok(step.CleanBoot, nil)

	image := step.ImageParams{
		Image: fleet.Image{Name: "debian", Format: "raw.zst", SHA256: hexSum(file), SizeBytes: int64(len(file)), VirtualSizeBytes: int64(len(raw))},
		Root:  fleet.RootDiskHints{Serial: "B"}, Accepted: l.accepted("A", "B"), Sources: []step.ImageSource{{URL: "/images/none", Ours: true}, {URL: "/images/debian", Ours: true}},
	}
	wrote := l.ok(step.WriteImage, image)
	if wrote["serial"] != "B" || wrote["source"] != "the server" || wrote["disk_bytes"] != float64(len(raw)) || wrote["zero_bytes"].(float64) < 30*mib || wrote["sha256"] != hexSum(file) || len(wrote["skipped"].([]any)) != 1 {
		t.Errorf("write-image: %v", wrote)
	}
	image.Sources = nil
	if v := l.ok(step.VerifyImage, image); v["content_sha256"] != hexSum(raw) {
		t.Errorf("verify-image: %v; the contents have %s", v, hexSum(raw))
	}
	userData := sha256.Sum256([]byte("user-data"))
	drive := l.ok(step.ConfigDrive, step.ConfigDriveParams{
		Root: image.Root, Accepted: image.Accepted, InstanceID: "i-1", Hostname: "n01", SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMPbAFLOJgtvLK0Tn3Vy0Ea2fPUPkZFVTNhGmOgYgZxM a"},
		UserData: "/secret", UserDigest: "sha256:" + hex.EncodeToString(userData[:]), Form: fleet.ConfigDriveNoCloud,
	})
	if !bytes.Contains(l.content(1), []byte("CIDATA")) {
		t.Error("the config drive is not of the form that was asked for")
	}
	if drive["user_data_bytes"] != float64(9) || drive["serial"] != "B" {
		t.Errorf("config-drive: %v", drive)
	}
	if !bytes.Contains(l.content(1), []byte("user-data")) {
		t.Error("user-data is not on the disk")
	}
	entry := l.ok(step.BootEntry, step.RootParams{Root: image.Root, Accepted: image.Accepted, Serial: "B"})
	if order, ok := entry["order"].([]any); !ok || len(order) != 2 || order[1] != "Boot0002" {
		t.Errorf("boot-entry: %v", entry)
	}
	for _, name := range []string{entry["entry"].(string), "BootNext"} {
		if _, err := os.Stat(filepath.Join(efivars, name+"-8be4df61-93ca-11d2-aa0d-00e098032b8c")); err != nil {
			t.Errorf("%s was not written: %v", name, err)
		}
	}
	if bytes.Count(l.content(0), []byte{0}) != 160*mib {
		t.Error("the data disk was written to")
	}
	// The disk changes under us: a read-back must notice.
	disk, err := os.OpenFile(l.disks[1].Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if _, err := disk.WriteAt([]byte("x"), 40*mib+7); err != nil {
		t.Fatal(err)
	}
	if r := l.do(step.VerifyImage, image); r.Error == nil || r.Error.Code != "MC-DISK-READBACK" {
		t.Errorf("a changed disk verifies: %s", mustJSON(t, r))
	}
}

func TestErasingTouchesOnlyWhatWasAccepted(t *testing.T) {
	l := newLab(t, 16*mib, "A", "B")
	l.run()
	r := l.do(step.EraseDisks, step.EraseParams{Accepted: l.accepted("A", "GONE"), Level: "clear"})
	if r.Error == nil || r.Error.Code != "MC-ERASE-INCOMPLETE" || r.Error.Transient {
		t.Fatalf("result = %s", mustJSON(t, r))
	}
	faults := map[string]string{}
	for _, f := range r.Error.Faults {
		faults[f.Component] = f.Code
		if f.Hint == "" || f.Evidence == "" || f.Since.IsZero() {
			t.Errorf("fault = %+v", f)
		}
	}
	if len(faults) != 2 || faults["disk/B"] != "MC-DEVICE-UNEXPECTED" || faults["disk/GONE"] != "MC-DEVICE-MISSING" {
		t.Errorf("faults = %v", faults)
	}
	if bytes.Count(l.content(0), []byte{0}) != 16*mib {
		t.Error("the accepted disk was not erased")
	}
	if !bytes.Contains(l.content(1), []byte("the last tenant's secret")) {
		t.Error("the disk that nobody accepted was touched")
	}
	if !strings.Contains(string(r.Evidence), `"serial":"A"`) {
		t.Errorf("evidence = %s", r.Evidence)
	}
}

func TestABootMediumThatWasAcceptedIsAFault(t *testing.T) {
	l := newLab(t, 16*mib, "A")
	l.deps.Disks = func(context.Context) ([]fleet.Disk, error) {
		list, err := inspect.FileDisks(l.disks)
		list[0].BootMedium = true
		return list, err
	}
	l.run()
	r := l.do(step.EraseDisks, step.EraseParams{Accepted: l.accepted("A"), Level: "clear"})
	if r.Error == nil || len(r.Error.Faults) != 1 || r.Error.Faults[0].Code != "MC-FAULT-ERASE-FAILED" {
		t.Errorf("result = %s", mustJSON(t, r))
	}
	if !bytes.Contains(l.content(0), []byte("the last tenant's secret")) {
		t.Error("the boot medium was touched")
	}
}

func TestWhatStepsRefuse(t *testing.T) {
	raw := make([]byte, 8*mib)
	copy(raw[mib:], "contents")
	good := fleet.Image{Name: "i", Format: "raw", SHA256: hexSum(raw), SizeBytes: int64(len(raw)), VirtualSizeBytes: int64(len(raw))}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }))
	t.Cleanup(origin.Close)
	ours := []step.ImageSource{{URL: "/images/i", Ours: true}}
	bad := good
	bad.SHA256 = strings.Repeat("0", 64)
	noDigest := good
	noDigest.SHA256 = ""
	long := good
	long.SizeBytes++
	l := newLab(t, 16*mib, "A")
	l.f.images = map[string][]byte{"i": raw}
	l.run()
	mine := l.accepted("A")
	for _, tc := range []struct {
		name, step, code string
		params           any
	}{
		{"an unknown parameter", step.EraseDisks, "MC-AGENT-TASK", map[string]any{"accepted": mine, "level": "clear", "force": true}},
		{"no level", step.EraseDisks, "MC-AGENT-TASK", step.EraseParams{Accepted: mine}},
		{"purge of a disk that can only be cleared", step.EraseDisks, "MC-ERASE-INCOMPLETE", step.EraseParams{Accepted: mine, Level: "purge"}},
		{"an image without digest", step.WriteImage, "MC-IMAGE-INVALID", step.ImageParams{Image: noDigest, Accepted: mine, Sources: ours}},
		{"nothing accepted", step.WriteImage, "MC-AGENT-DISK", step.ImageParams{Image: good, Sources: ours}},
		{"hints that nothing fits", step.WriteImage, "MC-DISK-ROOT", step.ImageParams{Image: good, Accepted: mine, Root: fleet.RootDiskHints{Serial: "B"}, Sources: ours}},
		{"no source", step.WriteImage, "MC-AGENT-TASK", step.ImageParams{Image: good, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}}},
		{"an address as a path", step.WriteImage, "MC-AGENT-TASK", step.ImageParams{Image: good, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}, Sources: []step.ImageSource{{URL: "@127.0.0.1/i", Ours: true}}}},
		{"an origin that is not allowed", step.WriteImage, "MC-IMAGE-ORIGIN", step.ImageParams{Image: good, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}, Sources: []step.ImageSource{{URL: origin.URL + "/i"}}}},
		{"a denied network that cannot be read", step.WriteImage, "MC-AGENT-TASK", step.ImageParams{Image: good, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}, Sources: []step.ImageSource{{URL: origin.URL + "/i"}}, Origins: []string{origin.URL}, Denied: []string{"10.0.0/8"}}},
		{"user-data without digest", step.ConfigDrive, "MC-AGENT-TASK", step.ConfigDriveParams{Accepted: mine, InstanceID: "i", Hostname: "h", UserData: "/secret"}},
		{"user-data with another digest", step.ConfigDrive, "MC-AGENT-USERDATA", step.ConfigDriveParams{Accepted: mine, InstanceID: "i", Hostname: "h", UserData: "/secret", UserDigest: strings.Repeat("0", 64)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l.t = t
			before := hexSum(l.content(0))
			r := l.do(tc.step, tc.params)
			if r.Error == nil || r.Error.Code != tc.code {
				t.Fatalf("result = %s, want %s", mustJSON(t, r), tc.code)
			}
			if hexSum(l.content(0)) != before {
				t.Error("the disk was changed")
			}
		})
	}
	for name, img := range map[string]fleet.Image{"an image with another digest": bad, "an image cut short": long} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			img.VirtualSizeBytes = 0
			r := l.do(step.WriteImage, step.ImageParams{Image: img, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}, Sources: ours})
			if r.Error == nil || !strings.HasPrefix(r.Error.Code, "MC-IMAGE-") {
				t.Fatalf("result = %s", mustJSON(t, r))
			}
			// Whatever was written, nobody takes it for a disk that was deployed.
			if v := l.do(step.VerifyImage, step.ImageParams{Image: img, Accepted: mine, Root: fleet.RootDiskHints{Serial: "A"}}); v.Error == nil {
				t.Errorf("it verifies: %s", mustJSON(t, v))
			}
		})
	}
}

func TestVerifyAfterARestartOfTheAgent(t *testing.T) {
	raw := make([]byte, 8*mib)
	copy(raw[mib:], "contents")
	for name, tc := range map[string]struct {
		params map[string]any
		code   string
	}{
		"raw: the image's digest is the contents'": {map[string]any{"image": fleet.Image{Name: "i", Format: "raw", SHA256: hexSum(raw), SizeBytes: int64(len(raw)), VirtualSizeBytes: int64(len(raw))}}, ""},
		"packed, and the server knows":             {map[string]any{"image": fleet.Image{Name: "i", Format: "raw.zst", SHA256: hexSum(nil)}, "content_sha256": hexSum(raw), "disk_bytes": len(raw), "serial": "A"}, ""},
		"packed, and nobody knows":                 {map[string]any{"image": fleet.Image{Name: "i", Format: "raw.zst", SHA256: hexSum(nil)}}, "MC-AGENT-UNPROVEN"},
		"the disk that was written is gone":        {map[string]any{"image": fleet.Image{Name: "i", Format: "raw", SHA256: hexSum(raw), SizeBytes: int64(len(raw))}, "serial": "Z"}, "MC-AGENT-DISK"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 16*mib, "A")
			f, err := os.OpenFile(l.disks[0].Path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(raw, 0); err != nil {
				t.Fatal(err)
			}
			l.run()
			tc.params["root"], tc.params["accepted"], tc.params["sources"] = fleet.RootDiskHints{Serial: "A"}, l.accepted("A"), nil
			r := l.do(step.VerifyImage, tc.params)
			if tc.code == "" && r.Error != nil || tc.code != "" && (r.Error == nil || r.Error.Code != tc.code) {
				t.Errorf("result = %s, want %q", mustJSON(t, r), tc.code)
			}
		})
	}
}

func TestBootEntryWithoutUEFI(t *testing.T) {
	l := newLab(t, 16*mib, "A")
	l.run()
	params := step.RootParams{Root: fleet.RootDiskHints{Serial: "A"}, Accepted: l.accepted("A")}
	if e := l.ok(step.BootEntry, params); !strings.Contains(fmt.Sprint(e["skipped"]), "no EFI variables") {
		t.Errorf("evidence = %v", e)
	}
	if err := os.MkdirAll(filepath.Join(l.root, "sys/firmware/efi/efivars"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{step.BootEntry, step.CleanBoot} {
		var p any
		if name == step.BootEntry {
			p = params
		}
		if r := l.do(name, p); r.Error == nil || r.Error.Code != "MC-EFI-NO-VARS" {
			t.Errorf("%s under UEFI without variables: %s", name, mustJSON(t, r))
		}
	}
}

func TestADescribedMachineNeverReachesTheHostsFirmware(t *testing.T) {
	host := newLab(t, 16*mib, "A")
	efivars := filepath.Join(host.root, "sys/firmware/efi/efivars")
	if err := os.MkdirAll(efivars, 0o755); err != nil {
		t.Fatal(err)
	}
	ours := filepath.Join(efivars, "Boot0001-8be4df61-93ca-11d2-aa0d-00e098032b8c")
	if err := os.WriteFile(ours, []byte("whatever it is, it stays"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"bios": "", "": "", "uefi": "MC-EFI-NO-VARS"} {
		l := newLab(t, 16*mib, "A")
		l.deps.Inspect = inspect.Options{Root: host.root, System: &fleet.System{Serial: "SIM-1", FirmwareMode: mode}}
		l.run()
		r := l.do(step.CleanBoot, nil)
		if want == "" && r.Error != nil || want != "" && (r.Error == nil || r.Error.Code != want) {
			t.Errorf("firmware mode %q: %s", mode, mustJSON(t, r))
		}
	}
	if b, err := os.ReadFile(ours); err != nil || string(b) != "whatever it is, it stays" {
		t.Errorf("the host's variable is %q, %v", b, err)
	}
}

func TestLeftover(t *testing.T) {
	random := []byte(strings.Repeat("\x01ab\x80", 64))
	for name, tc := range map[string]struct {
		b      []byte
		random bool
		want   int
	}{
		"zeros":                           {make([]byte, 100), false, -1},
		"a byte":                          {append(make([]byte, 10), 1), false, 10},
		"one constant":                    {bytes.Repeat([]byte{'f'}, 4096), true, -1},
		"random bytes":                    {random, true, -1},
		"text within random":              {append(bytes.Clone(random), strings.Repeat("secret! ", 9)...), true, 256},
		"random bytes where zeros belong": {random, false, 0},
		"nothing":                         {nil, true, -1},
	} {
		if got := leftover(tc.b, tc.random); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	for _, size := range []int64{1, sampleBytes, 10*sampleBytes + 5, samplePlaces * sampleBytes * 100, 3840755982336} {
		list := places(size)
		if list[0] != 0 || list[len(list)-1] != (size-1)/sampleBytes*sampleBytes {
			t.Errorf("%d bytes: samples from %d to %d miss an end", size, list[0], list[len(list)-1])
		}
	}
}

func TestProgressOfDisksSideBySideAddsUp(t *testing.T) {
	var stage string
	var done, all int64
	c := step.Call{Progress: func(s string, d, a int64) { stage, done, all = s, d, a }}
	tot := newTotal(c, []disk.Device{{Path: "a", Serial: "A", SizeBytes: 100}, {Path: "b", Serial: "B", SizeBytes: 50}, {Path: "c", Serial: "C", SizeBytes: 7}},
		[]fleet.AcceptedDevice{{Serial: "A"}, {Serial: "B"}})
	tot.set("a", disk.Progress{Stage: "erase", DoneBytes: 40, TotalBytes: 100})
	tot.set("b", disk.Progress{Stage: "erase", DoneBytes: 50, TotalBytes: 50})
	tot.set("b", disk.Progress{Stage: "sample", DoneBytes: 1, TotalBytes: 3})
	if stage != "erasing 1 disks" || done != 90 || all != 150 {
		t.Errorf("%s: %d of %d", stage, done, all)
	}
	tot.set("a", disk.Progress{Stage: "erase", DoneBytes: 100, TotalBytes: 100})
	tot.set("a", disk.Progress{Stage: "sample"})
	if stage != "reading samples of 2 disks" || done != 150 {
		t.Errorf("%s: %d of %d", stage, done, all)
	}
}
