//go:build cgo

package cuda

import (
	"errors"
	"time"
	"unsafe"
)

// Device is one GPU, with a stream of its own. All waits are for that stream.
type Device struct {
	PCI   string
	SMs   int
	Major int
	// Loaded is how long the driver compiled modules.
	Loaded time.Duration

	d            *Driver
	device       uintptr
	context      uintptr
	stream       uintptr
	began, ended uintptr
	functions    map[string]uintptr
}

// Numbers of CUdevice_attribute.
const (
	attributeSMs   = 16
	attributeMajor = 75
)

// Device opens a GPU by its PCI address and makes its primary context that of the thread.
func (d *Driver) Device(pci string) (*Device, error) {
	g := &Device{PCI: pci, d: d, functions: map[string]uintptr{}}
	address := unsafe.Slice((*byte)(unsafe.Add(d.memory, 256)), 64)
	clear(address)
	copy(address[:63], pci)
	if err := d.call(pci, "cuDeviceGetByPCIBusId", d.out(0), uintptr(unsafe.Pointer(&address[0]))); err != nil {
		return nil, err
	}
	g.device = uintptr(uint32(*d.slot(0)))
	for attribute, to := range map[uintptr]*int{attributeSMs: &g.SMs, attributeMajor: &g.Major} {
		if err := d.call(pci, "cuDeviceGetAttribute", d.out(0), attribute, g.device); err != nil {
			return nil, err
		}
		*to = int(int32(*d.slot(0)))
	}
	if err := g.make("cuDevicePrimaryCtxRetain", &g.context, g.device); err != nil {
		return nil, err
	}
	if err := g.Use(); err != nil {
		return nil, err
	}
	const nonBlocking = 1
	return g, errors.Join(g.make("cuStreamCreate", &g.stream, nonBlocking), g.make("cuEventCreate", &g.began, 0), g.make("cuEventCreate", &g.ended, 0))
}

// make calls a function that makes something.
func (g *Device) make(function string, to *uintptr, args ...uintptr) error {
	err := g.d.call(g.PCI, function, append([]uintptr{g.d.out(0)}, args...)...)
	*to = uintptr(*g.d.slot(0))
	return err
}

// Use makes the GPU's context that of the thread: before calls for it, where a thread has several.
func (g *Device) Use() error { return g.d.call(g.PCI, "cuCtxSetCurrent", g.context) }

// Load compiles a module and finds its kernels.
func (g *Device) Load(module string, kernels ...string) error {
	began := time.Now()
	m, err := g.d.load(g.PCI, PTX(module))
	g.Loaded += time.Since(began)
	if err != nil {
		return err
	}
	for _, k := range kernels {
		name := unsafe.Slice((*byte)(unsafe.Add(g.d.memory, 256)), 64)
		clear(name)
		copy(name[:63], k)
		var f uintptr
		if err := g.make("cuModuleGetFunction", &f, m, uintptr(unsafe.Pointer(&name[0]))); err != nil {
			return err
		}
		g.functions[k] = f
	}
	return nil
}

// Memory is how much of the GPU's memory is free, and how much there is.
func (g *Device) Memory() (free, total uint64, err error) {
	err = g.d.call(g.PCI, "cuMemGetInfo_v2", g.d.out(0), g.d.out(1))
	return *g.d.slot(0), *g.d.slot(8), err
}

// Alloc takes memory of the GPU.
func (g *Device) Alloc(bytes uint64) (at uint64, err error) {
	var p uintptr
	err = g.make("cuMemAlloc_v2", &p, uintptr(bytes))
	return uint64(p), err
}

// AllocHost takes memory of the host that stays in its place. It lasts as long as the process.
func (g *Device) AllocHost(words int) ([]uint64, error) {
	var p uintptr
	if err := g.make("cuMemHostAlloc", &p, uintptr(words)*8, 0); err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint64)(pointer(uint64(p))), words), nil
}

// Launch queues a kernel with blocks of Block threads. Arguments are uint32 or uint64.
func (g *Device) Launch(kernel string, blocks int, args ...any) error {
	values := unsafe.Slice(g.d.slot(512), len(args))
	places := unsafe.Slice(g.d.slot(1024), len(args))
	for i, a := range args {
		switch v := a.(type) {
		case uint32:
			values[i] = uint64(v)
		case uint64:
			values[i] = v
		default:
			panic("a kernel's argument is neither uint32 nor uint64")
		}
		places[i] = uint64(uintptr(unsafe.Pointer(&values[i])))
	}
	return g.d.call(g.PCI, "cuLaunchKernel", g.functions[kernel], uintptr(blocks), 1, 1, Block, 1, 1, 0, g.stream, uintptr(unsafe.Pointer(&places[0])), 0)
}

// Upload queues a copy from memory of AllocHost; Download to it.
func (g *Device) Upload(to uint64, from []uint64) error {
	return g.d.call(g.PCI, "cuMemcpyHtoDAsync_v2", uintptr(to), uintptr(unsafe.Pointer(&from[0])), uintptr(len(from))*8, g.stream)
}

func (g *Device) Download(to []uint64, from uint64) error {
	return g.d.call(g.PCI, "cuMemcpyDtoHAsync_v2", uintptr(unsafe.Pointer(&to[0])), uintptr(from), uintptr(len(to))*8, g.stream)
}

// Send queues a copy to another GPU's memory.
func (g *Device) Send(peer *Device, to, from, bytes uint64) error {
	return g.d.call(g.PCI, "cuMemcpyPeerAsync", uintptr(to), peer.context, uintptr(from), g.context, uintptr(bytes), g.stream)
}

// Reach lets the GPU, which must be in Use, write another's memory directly. False: what is sent goes through the host.
func (g *Device) Reach(peer *Device) (bool, error) {
	if err := g.d.call(g.PCI, "cuDeviceCanAccessPeer", g.d.out(0), g.device, peer.device); err != nil {
		return false, err
	}
	if int32(*g.d.slot(0)) == 0 {
		return false, nil
	}
	err := g.d.call(g.PCI, "cuCtxEnablePeerAccess", peer.context, 0)
	var e *Error
	if errors.As(err, &e) && e.Code == peerAlreadyOn {
		err = nil
	}
	return err == nil, err
}

// Begin and End mark a time span in the stream; Took waits for its end and tells how long it took the GPU.
func (g *Device) Begin() error { return g.d.call(g.PCI, "cuEventRecord", g.began, g.stream) }
func (g *Device) End() error   { return g.d.call(g.PCI, "cuEventRecord", g.ended, g.stream) }

func (g *Device) Took() (time.Duration, error) {
	if err := g.Wait(); err != nil {
		return 0, err
	}
	err := g.d.call(g.PCI, "cuEventElapsedTime", g.d.out(0), g.began, g.ended)
	ms := *(*float32)(unsafe.Pointer(g.d.slot(0)))
	return time.Duration(float64(ms) * float64(time.Millisecond)), err
}

// Wait waits for all that was queued.
func (g *Device) Wait() error { return g.d.call(g.PCI, "cuStreamSynchronize", g.stream) }
