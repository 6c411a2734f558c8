package cuda

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

var entry = regexp.MustCompile(`(?m)^\.visible \.entry (mc_[a-z0-9]+)\(`)

// entries are the kernels of a module's text.
func entries(module string) (names []string) {
	for _, m := range entry.FindAllSubmatch(PTX(module), -1) {
		names = append(names, string(m[1]))
	}
	return names
}

func TestEveryKernelIsInItsModule(t *testing.T) {
	if got := entries(Memory); !slices.Equal(got, []string{"mc_fill", "mc_check", "mc_read", "mc_write", "mc_copy"}) {
		t.Errorf("%v", got)
	}
	for _, k := range Kernels {
		if !slices.Contains(entries(k.Module), k.Name) {
			t.Errorf("%s has no %s", k.Module, k.Name)
		}
	}
	if n := len(entries(Compute)) + len(entries(Tensor)); n != len(Kernels) {
		t.Errorf("there are %d kernels that compute, and %d of them are known", n, len(Kernels))
	}
}

// Old drivers must take the texts, and new ones must run them on GPUs that came later.
func TestKernelsAskForNoMoreThanTheyNeed(t *testing.T) {
	for module, want := range map[string]string{Memory: ".version 6.0\n.target sm_50\n", Compute: ".version 6.0\n.target sm_50\n", Tensor: ".version 7.0\n.target sm_80\n"} {
		if !bytes.Contains(PTX(module), []byte(want+".address_size 64\n")) {
			t.Errorf("%s does not begin with %q", module, want)
		}
	}
}

// TestAssemble holds the kernels against NVIDIA's own assembler, where there is one. Registers that spill to memory would make the rates those of memory.
func TestAssemble(t *testing.T) {
	ptxas, err := exec.LookPath("ptxas")
	if err != nil {
		t.Skip("peer: ptxas is not in PATH")
	}
	spills := regexp.MustCompile(`[1-9][0-9]* bytes spill`)
	for _, module := range []string{Memory, Compute, Tensor} {
		for _, arch := range []int{50, 60, 70, 75, 80, 86, 89, 90} {
			if module == Tensor && arch < 80 {
				continue
			}
			t.Run(fmt.Sprintf("%s sm_%d", module, arch), func(t *testing.T) {
				file := filepath.Join(t.TempDir(), module+".ptx")
				if err := os.WriteFile(file, PTX(module), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(ptxas, "-v", "--warning-as-error", fmt.Sprintf("-arch=sm_%d", arch), "-o", file+".cubin", file).CombinedOutput()
				if err != nil || spills.Match(out) {
					t.Errorf("%v\n%s", err, out)
				}
			})
		}
	}
}
