package fleet

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Parts of NVIDIA's software that packs bring, as they are named in Pack.Carries.
const (
	PartDriver        = "driver"
	PartCUDADriver    = "cuda-driver"
	PartGSP           = "gsp-firmware"
	PartPTX           = "ptx-compiler"
	PartNSCQ          = "nscq"
	PartFabricManager = "fabric-manager"
	PartNVLSM         = "nvlsm"
)

// driverParts are released together with the driver and work with exactly that version: another one fails at load, or leaves the fabric in progress.
var driverParts = []string{PartDriver, PartCUDADriver, PartGSP, PartPTX, PartNSCQ, PartFabricManager}

// carriers say by the names of files which version of what a pack brings. NVIDIA's libraries and firmware have it in their names, what has not is told by the
// folder of its archive.
var carriers = []struct {
	part string
	name *regexp.Regexp
}{
	{PartDriver, regexp.MustCompile(`/libnvidia-ml\.so\.(\d+\.\d+(?:\.\d+)?)$`)},
	{PartCUDADriver, regexp.MustCompile(`/libcuda\.so\.(\d+\.\d+(?:\.\d+)?)$`)},
	{PartPTX, regexp.MustCompile(`/libnvidia-ptxjitcompiler\.so\.(\d+\.\d+(?:\.\d+)?)$`)},
	{PartNSCQ, regexp.MustCompile(`/libnvidia-nscq\.so\.(\d+\.\d+(?:\.\d+)?)$`)},
	{PartGSP, regexp.MustCompile(`/nvidia/(\d+\.\d+(?:\.\d+)?)/gsp[^/]*\.bin$`)},
	{PartFabricManager, regexp.MustCompile(`/fabricmanager-linux-[^/]*-(\d+\.\d+(?:\.\d+)?)-archive/`)},
	{PartNVLSM, regexp.MustCompile(`/nvlsm-linux-[^/]*-(\d+\.\d+(?:\.\d+)?)-archive/`)},
}

// named are packs that are one part by their own name, and have its version.
var named = map[string]string{
	"nvidia-fabricmanager": PartFabricManager, "nvidia-fabric-manager": PartFabricManager, "fabricmanager": PartFabricManager, "fabric-manager": PartFabricManager, "nvlsm": PartNVLSM,
}

// PackParts gathers what the files of a pack say that it brings.
type PackParts struct{ found map[string][]string }

// Add looks at the name of a file in the pack.
func (p *PackParts) Add(name string) {
	name = "/" + strings.TrimPrefix(path.Clean(name), "/")
	for _, c := range carriers {
		m := c.name.FindStringSubmatch(name)
		if m == nil || slices.Contains(p.found[c.part], m[1]) {
			continue
		}
		if p.found == nil {
			p.found = map[string][]string{}
		}
		p.found[c.part] = append(p.found[c.part], m[1])
	}
}

// Carries is what the pack brings, by part. A pack that brings two versions of one part is refused: MC-PACK-FIT.
func (p *PackParts) Carries(k Pack) (map[string]string, error) {
	out := map[string]string{}
	for _, part := range slices.Sorted(maps.Keys(p.found)) {
		if v := p.found[part]; len(v) > 1 {
			return nil, Errorf(Invalid, "MC-PACK-FIT", "the pack %s brings %s in the versions %s", k.ID(), part, strings.Join(v, " and ")).WithHint("build it from a folder with one of them, under another version")
		}
		out[part] = p.found[part][0]
	}
	if part := named[strings.ToLower(k.Name)]; part != "" && out[part] == "" && majorOf(k.Version) > 0 {
		out[part] = k.Version
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, nil
}

// majorOf is the first number of a version, 0 where it begins with none.
func majorOf(version string) int {
	head, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(head)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// MisfitPacks says in which ways packs that one machine gets together do not fit together, or do not fit a class's GPUs; nothing where they do. What packs do
// not tell of themselves is not judged: the boot medium may bring it.
func MisfitPacks(packs []Pack, c Class) (out []string) {
	type bringer struct{ pack, version string }
	who := map[string]bringer{}
	for _, p := range packs {
		for part, version := range p.Carries {
			if other, twice := who[part]; twice && other.version != version {
				out = append(out, fmt.Sprintf("%s brings %s %s, and %s brings %s", other.pack, part, other.version, p.ID(), version))
				continue
			}
			who[part] = bringer{p.ID(), version}
		}
	}
	first := ""
	for _, part := range driverParts {
		x, ok := who[part]
		switch {
		case !ok:
		case first == "":
			first = part
		case x.version != who[first].version:
			out = append(out, fmt.Sprintf("%s brings %s %s, and %s brings %s %s: they work with exactly one version", who[first].pack, first, who[first].version, x.pack, part, x.version))
		}
	}
	nvlsm, subnet := who[PartNVLSM]
	_, manager := who[PartFabricManager]
	if subnet && !manager {
		out = append(out, nvlsm.pack+" brings nvlsm, and no pack brings the fabric manager that it works for")
	}
	if manager && !subnet && managedBySubnet(c) {
		out = append(out, fmt.Sprintf("the NVSwitches of %s are managed through nvlsm, and no pack brings it beside the fabric manager of %s", c.Expect.GPUs.Model, who[PartFabricManager].pack))
	}
	slices.Sort(out)
	return out
}

// managedBySubnet reports whether a class's GPUs are those of a baseboard whose NVSwitches are an InfiniBand-like subnet of their own: Blackwell's.
func managedBySubnet(c Class) bool {
	return strings.Contains(c.Expect.GPUs.Model, "B200") || strings.Contains(c.Expect.GPUs.Model, "B300")
}
