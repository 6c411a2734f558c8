//go:build cgo

package cuda

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>

typedef uintptr_t word;

// Every argument of CUDA's driver functions is an integer or a pointer, which the ABIs of amd64 and arm64 pass alike; those that a function does not have it
// does not look at.
static int mc_call(void *f, const word *a)
{
	return ((int (*)(word, word, word, word, word, word, word, word, word, word, word))f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10]);
}
*/
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// LibraryName is the driver's library where the loader finds it.
const LibraryName = "libcuda.so.1"

// functions are all that are called. Those with a version are of the binary interface that every driver since CUDA 4 has.
var functions = []string{
	"cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuDeviceGetByPCIBusId", "cuDeviceGetAttribute", "cuDeviceCanAccessPeer",
	"cuDevicePrimaryCtxRetain", "cuCtxSetCurrent", "cuCtxEnablePeerAccess", "cuMemGetInfo_v2", "cuMemAlloc_v2", "cuMemHostAlloc",
	"cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyPeerAsync", "cuStreamCreate", "cuStreamSynchronize",
	"cuEventCreate", "cuEventRecord", "cuEventElapsedTime", "cuModuleLoadDataEx", "cuModuleGetFunction", "cuLaunchKernel",
}

// scratch is how many bytes of C's memory take results and arguments.
const scratch = 8 << 10

// Driver is the opened library. It serves one thread, the one that opened it: contexts are bound to it.
type Driver struct {
	// announce is told each function before it is called, and for which GPU.
	announce func(call, pci string)
	at       map[string]unsafe.Pointer
	// memory is C's: no pointer of Go's ever reaches the library.
	memory unsafe.Pointer
}

// Open opens the library at path, or the loader's where it is "", and initialises it. The calling goroutine is bound to its thread for good.
func Open(path string, announce func(call, pci string)) (*Driver, error) {
	if path == "" {
		path = LibraryName
	}
	runtime.LockOSThread()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	lib := C.dlopen(name, C.RTLD_LAZY|C.RTLD_LOCAL)
	if lib == nil {
		return nil, &Error{Call: "dlopen", Words: "CUDA's driver library cannot be opened: " + C.GoString(C.dlerror())}
	}
	d := &Driver{announce: announce, at: map[string]unsafe.Pointer{}, memory: C.calloc(1, scratch)}
	for _, f := range functions {
		symbol := C.CString(f)
		d.at[f] = C.dlsym(lib, symbol)
		C.free(unsafe.Pointer(symbol))
		if d.at[f] == nil {
			return nil, &Error{Call: "dlsym", Words: fmt.Sprintf("%s has no %s: it is too old, or not NVIDIA's driver library", path, f)}
		}
	}
	return d, d.call("", "cuInit", 0)
}

// call calls a function; its result is an *Error or nil.
func (d *Driver) call(pci, function string, args ...uintptr) error {
	d.announce(function, pci)
	var a [11]C.word
	for i, v := range args {
		a[i] = C.word(v)
	}
	code := int(C.mc_call(d.at[function], &a[0]))
	if code == 0 {
		return nil
	}
	e := &Error{Call: function, Code: code, Name: "unknown code", Words: hint(function, code)}
	name := d.slot(scratch - 8)
	*name = 0
	a = [11]C.word{C.word(code), C.word(uintptr(unsafe.Pointer(name)))}
	if C.mc_call(d.at["cuGetErrorName"], &a[0]) == 0 && *name != 0 {
		e.Name = C.GoString((*C.char)(pointer(*name)))
	}
	return e
}

// pointer is an address of the library's as one of Go's unsafe pointers; the collector knows that it is none of its own.
func pointer(at uint64) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&at)) }

// slot is a place for a result in C's memory.
func (d *Driver) slot(offset uintptr) *uint64 { return (*uint64)(unsafe.Add(d.memory, offset)) }

// out is the address of the first places for results, cleared.
func (d *Driver) out(i uintptr) uintptr {
	*d.slot(8 * i) = 0
	return uintptr(unsafe.Pointer(d.slot(8 * i)))
}

// Version is the newest CUDA that the driver speaks, such as 12.8.
func (d *Driver) Version() (string, error) {
	if err := d.call("", "cuDriverGetVersion", d.out(0)); err != nil {
		return "", err
	}
	v := int32(*d.slot(0))
	return fmt.Sprintf("%d.%d", v/1000, v%1000/10), nil
}

// load compiles a module; what the compiler said stands in the error.
func (d *Driver) load(pci string, text []byte) (uintptr, error) {
	image := C.CBytes(append(text, 0))
	defer C.free(image)
	const errorLog, errorLogSize, room = 5, 6, 2048
	log := unsafe.Add(d.memory, 4096)
	*(*byte)(log) = 0
	options := unsafe.Slice((*uint32)(unsafe.Add(d.memory, 64)), 2)
	options[0], options[1] = errorLog, errorLogSize
	values := unsafe.Slice(d.slot(128), 2)
	values[0], values[1] = uint64(uintptr(log)), room
	err := d.call(pci, "cuModuleLoadDataEx", d.out(0), uintptr(image), 2, uintptr(unsafe.Pointer(&options[0])), uintptr(unsafe.Pointer(&values[0])))
	var e *Error
	if errors.As(err, &e) && e.Words == "" {
		e.Words = C.GoStringN((*C.char)(log), C.int(room))
		for i, c := range []byte(e.Words) {
			if c == 0 || c == '\n' {
				e.Words = e.Words[:i]
				break
			}
		}
	}
	return uintptr(*d.slot(0)), err
}
