package cuda

import "fmt"

// Error is a call into NVIDIA's library that did not succeed, or one that could not be made.
type Error struct {
	// Call is the function, or "dlopen".
	Call string
	// Code is CUresult; 0 where the library or a function is not there.
	Code int
	// Name is CUDA's name for the code, and Words what else is known of it.
	Name, Words string
}

func (e *Error) Error() string {
	switch {
	case e.Code == 0:
		return e.Words
	case e.Words != "":
		return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Words)
	}
	return fmt.Sprintf("%s: %s (%d)", e.Call, e.Name, e.Code)
}

// Codes of CUresult that say more than their name.
const (
	outOfMemory       = 2
	notInitialized    = 3
	stubLibrary       = 34
	deviceUnavailable = 46
	noDevice          = 100
	invalidDevice     = 101
	noCompiler        = 221
	unsupportedPTX    = 222
	peerAlreadyOn     = 704
	notPermitted      = 800
	systemNotReady    = 802
	driverMismatch    = 803
	compatUnsupported = 804
	unknown           = 999
)

// Cause is the error in a word of fleet.Untold: what lies in the platform is told apart from what may lie in a GPU.
func (e *Error) Cause() string {
	switch e.Code {
	case 0, stubLibrary, noCompiler:
		return "no-library"
	case outOfMemory:
		return "no-memory"
	case notInitialized:
		return "no-driver"
	case noDevice, invalidDevice:
		return "no-device"
	case unsupportedPTX, driverMismatch, compatUnsupported:
		return "driver-mismatch"
	case systemNotReady:
		return "fabric-not-ready"
	case deviceUnavailable, notPermitted:
		return "denied"
	}
	return "other"
}

// hint says what a code usually comes from.
func hint(call string, code int) string {
	switch {
	case code == systemNotReady:
		return "the GPUs wait for the fabric manager"
	case code == driverMismatch:
		return "the library and the kernel driver are of different versions"
	case code == compatUnsupported:
		return "the library is newer than the kernel driver, and these GPUs do not allow that"
	case code == noCompiler:
		return "libnvidia-ptxjitcompiler.so.1 belongs beside the library"
	case code == unsupportedPTX:
		return "the driver is too old for these kernels"
	case code == unknown && call == "cuInit":
		return "often the kernel module nvidia-uvm is not loaded"
	}
	return ""
}
