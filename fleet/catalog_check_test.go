package fleet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCatalogValues(t *testing.T) {
	class := Class{Name: "h100", BurnIn: "none", EraseLevel: "purge"}
	site := Site{Isolation: "none", Origins: []string{"https://*.example.org", "http://10.0.0.5:8080"}, Denied: []string{"10.0.0.0/8"}}
	image := Image{Name: "debian", Format: "raw", SHA256: strings.Repeat("a", 64), URL: "https://images.example.org/x", SizeBytes: 1}
	for _, c := range []struct {
		name string
		got  []FieldError
		want []string
	}{
		{"a class", class.Validate(), nil},
		{"a site", site.Validate(), nil},
		{"an image", image.Validate(), nil},
		{"a class that says nothing", Class{}.Validate(), []string{"burnin", "erase_level", "name"}},
		{"a class with less than none", Class{Name: "x", BurnIn: "none", EraseLevel: "clear", Expect: ClassExpect{GPUs: ExpectGPUs{Count: -1}, CPUs: -1}}.Validate(), []string{"expect.cpus", "expect.gpus"}},
		{"cleaning that cannot be", Class{Name: "x", BurnIn: "none", EraseLevel: "clear", Clean: CleanPolicy{GPUs: CleanGPUs{MIG: "maybe"}, Memory: "wash", MemoryOffSeconds: 60}}.Validate(), []string{"clean.gpus.mig", "clean.memory", "clean.memory_off_seconds"}},
		{"too short a cold cycle", Class{Name: "x", BurnIn: "none", EraseLevel: "clear", Clean: CleanPolicy{Memory: CleanColdCycle, MemoryOffSeconds: 9}}.Validate(), []string{"clean.memory_off_seconds"}},
		{"a site that says nothing", Site{}.Validate(), []string{"isolation"}},
		{"origins that are none", Site{Isolation: "required", Origins: []string{"ftp://a", "https://u:p@a", "https://a/path", "https://a:0", "https://a_b"}}.Validate(),
			[]string{"origins[0]", "origins[1]", "origins[2]", "origins[3]", "origins[4]"}},
		{"other bad settings", Site{Isolation: "none", Denied: []string{"10.0.0.1"}, PhoneHome: "gopher://a", FenceNodes: -1}.Validate(), []string{"denied[0]", "phone_home", "fence_nodes"}},
		{"an image that says nothing", Image{}.Validate(), []string{"name", "format", "sha256"}},
		{"an image with a user in its address", Image{Name: "x", Format: "raw", SHA256: image.SHA256, URL: "https://u:p@a/x"}.Validate(), []string{"url", "size_bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fields []string
			for _, f := range c.got {
				fields = append(fields, f.Field)
			}
			if d := cmp.Diff(c.want, fields); d != "" {
				t.Errorf("fields (-want +got):\n%s", d)
			}
		})
	}
}
