package fleet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatAPackBrings(t *testing.T) {
	for name, c := range map[string]struct {
		pack  Pack
		files []string
		want  map[string]string
		code  string
	}{
		"tools": {Pack{Name: "tools", Version: "1.2"}, []string{"bin/fio", "lib/libcuda.so.1", "lib/libnvidia-ml.so"}, nil, ""},
		"a driver": {Pack{Name: "nvidia", Version: "r580"}, []string{"usr/lib/libcuda.so.1", "usr/lib/libcuda.so.580.95.05", "./usr/lib/libnvidia-ml.so.580.95.05", "lib/firmware/nvidia/580.95.05/gsp_ga10x.bin", "lib/firmware/nvidia/580.95.05/gsp_tu10x.bin",
			"lib/libnvidia-ptxjitcompiler.so.580.95.05"}, map[string]string{"driver": "580.95.05", "cuda-driver": "580.95.05", "gsp-firmware": "580.95.05", "ptx-compiler": "580.95.05"}, ""},
		"archives":            {Pack{Name: "fabric", Version: "1"}, []string{"fabricmanager-linux-x86_64-570.148.08-archive/bin/nv-fabricmanager", "nvlsm-linux-x86_64-2025.03.1-archive/sbin/nvlsm"}, map[string]string{"fabric-manager": "570.148.08", "nvlsm": "2025.03.1"}, ""},
		"by its name":         {Pack{Name: "nvidia-fabricmanager", Version: "580.95.05"}, []string{"bin/nv-fabricmanager"}, map[string]string{"fabric-manager": "580.95.05"}, ""},
		"a name of no number": {Pack{Name: "nvlsm", Version: "newest"}, []string{"sbin/nvlsm"}, nil, ""},
		"two drivers at once": {Pack{Name: "nvidia", Version: "1"}, []string{"a/libcuda.so.580.95.05", "b/libcuda.so.570.148.08"}, nil, "MC-PACK-FIT"},
	} {
		t.Run(name, func(t *testing.T) {
			var p PackParts
			for _, f := range c.files {
				p.Add(f)
			}
			got, err := p.Carries(c.pack)
			if diff := cmp.Diff(c.want, got); diff != "" || CodeOf(err) != c.code {
				t.Errorf("(-want +got) %s, %v", diff, err)
			}
		})
	}
}

func TestPacksThatDoNotFit(t *testing.T) {
	brings := func(name string, kv ...string) Pack {
		p := Pack{Name: name, Version: "1", Carries: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			p.Carries[kv[i]] = kv[i+1]
		}
		return p
	}
	driver := brings("nvidia", PartDriver, "580.95.05", PartCUDADriver, "580.95.05")
	h200, b200 := Class{Expect: ClassExpect{GPUs: ExpectGPUs{Model: "NVIDIA H200"}}}, Class{Expect: ClassExpect{GPUs: ExpectGPUs{Model: "NVIDIA B200"}}}
	for name, c := range map[string]struct {
		packs []Pack
		class Class
		want  string // each a part of what is said, with a comma between
	}{
		"none":                           {nil, h200, ""},
		"a driver alone":                 {[]Pack{driver}, h200, ""},
		"with its fabric manager":        {[]Pack{driver, brings("fm", PartFabricManager, "580.95.05")}, h200, ""},
		"with another's":                 {[]Pack{driver, brings("fm", PartFabricManager, "580.82.07")}, h200, "fabric-manager 580.82.07"},
		"with another CUDA driver":       {[]Pack{brings("a", PartDriver, "580.95.05"), brings("b", PartCUDADriver, "570.148.08")}, h200, "cuda-driver 570.148.08"},
		"two of the same part":           {[]Pack{driver, brings("b", PartDriver, "570.148.08")}, h200, "driver 580.95.05, and b@1 brings 570.148.08"},
		"Blackwell without nvlsm":        {[]Pack{driver, brings("fm", PartFabricManager, "580.95.05")}, b200, "NVIDIA B200"},
		"Blackwell with it":              {[]Pack{driver, brings("fm", PartFabricManager, "580.95.05"), brings("nvlsm", PartNVLSM, "2025.03.1")}, b200, ""},
		"nvlsm without a fabric manager": {[]Pack{driver, brings("nvlsm", PartNVLSM, "2025.03.1")}, b200, "no pack brings the fabric manager"},
	} {
		t.Run(name, func(t *testing.T) {
			got := MisfitPacks(c.packs, c.class)
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func FuzzPackParts(f *testing.F) {
	f.Add("usr/lib/libcuda.so.580.95.05\nfabricmanager-linux-x86_64-580.95.05-archive/bin/nv-fabricmanager")
	f.Add("../../libnvidia-ml.so.1.2.3\n\x00//")
	f.Fuzz(func(t *testing.T, names string) {
		var p PackParts
		for name := range strings.SplitSeq(names, "\n") {
			p.Add(name)
		}
		got, err := p.Carries(Pack{Name: "x", Version: "1"})
		if err != nil && CodeOf(err) != "MC-PACK-FIT" {
			t.Errorf("%v", err)
		}
		for part, version := range got {
			if !strings.Contains(names, version) {
				t.Errorf("%s %s stands nowhere in %q", part, version, names)
			}
		}
	})
}
