// Package cuda drives NVIDIA GPUs by CUDA's driver library, which it opens by itself, with kernels of its own.
package cuda

import "embed"

// ptx are the kernels: texts that the driver compiles for the GPU at hand.
//
//go:embed ptx/*.ptx
var ptx embed.FS

// Modules are the kernels' texts: memory and compute run on any GPU from compute capability 5.0 on, tensor from 8.0 on.
const (
	Memory  = "memory"
	Compute = "compute"
	Tensor  = "tensor"
)

// PTX is the text of a module.
func PTX(module string) []byte {
	b, err := ptx.ReadFile("ptx/" + module + ".ptx")
	if err != nil {
		panic("there is no module " + module)
	}
	return b
}

// Block is how many threads a block of any kernel has.
const Block = 256

// FirstTensor is the lowest major compute capability that has the instructions of Tensor.
const FirstTensor = 8

// Kernel computes: its blocks write one 32 bit word a thread.
type Kernel struct {
	Name, Module string
	// Check is what its rate is called, in Unit of 1e12 operations.
	Check string
	// Operations are those of one block in one step; a multiply-add counts as two.
	Operations float64
}

const (
	warps  = Block / 32
	chain  = 2 * 32 * 64 * Block                // 32 turns of 64 multiply-adds a thread
	tile   = 2 * 512 * 64 * Block               // 512 turns
	bf16   = 2 * 64 * 8 * (16 * 8 * 16) * warps // 64 turns of 8 products a warp
	int8ly = 2 * 64 * 8 * (16 * 8 * 32) * warps
)

// Kernels are all that compute. Their results do not depend on the GPU.
var Kernels = []Kernel{
	{"mc_int32", Compute, "gpu-int32", chain},
	{"mc_fp32", Compute, "gpu-fp32", tile},
	{"mc_fp64", Compute, "gpu-fp64", tile},
	{"mc_bf16", Tensor, "gpu-bf16", bf16},
	{"mc_int8", Tensor, "gpu-int8", int8ly},
}

// Pattern is what mc_fill writes.
type Pattern uint32

const (
	OwnAddress Pattern = iota
	Solid
	WalkingBit
	Random
)

func (p Pattern) String() string {
	return [...]string{"own address", "solid", "walking bit", "random"}[p]
}

// RandomWord is word i of Random.
func RandomWord(seed, i uint64) uint64 {
	w := i*0x9e3779b97f4a7c15 ^ seed
	w ^= w << 13
	w ^= w >> 7
	w ^= w << 17
	return w
}
