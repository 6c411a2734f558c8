//go:build cgo

package gpu

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/metalctl/metalctl/fleet"
)

// WithNVIDIA reports whether this build can open NVIDIA's library.
const WithNVIDIA = true

const libraryName = "libnvidia-ml.so.1"

// helper is the child: it opens the library once, and calls it one call at a time.
type helper struct {
	out  *bufio.Writer
	enc  *json.Encoder
	lib  nvml.Interface
	has  map[string]bool
	lost bool  // the GPU is lost: no more calls
	err  error // of writing: the parent is gone

	handles map[string]nvml.Device // of GPUs that are sampled
	loader  *loader
	stop    atomic.Bool // the load is to end
}

// Serve is the child's side. It ends with its input, whatever a call does.
func Serve(in io.Reader, out io.Writer) error {
	w := bufio.NewWriter(out)
	h := &helper{out: w, enc: json.NewEncoder(w), has: map[string]bool{}, handles: map[string]nvml.Device{}}
	requests := make(chan request)
	bad := make(chan error, 1)
	go func() {
		defer close(requests)
		s := bufio.NewScanner(in)
		s.Buffer(nil, maxLine)
		for s.Scan() {
			var r request
			if err := json.Unmarshal(s.Bytes(), &r); err != nil {
				bad <- fmt.Errorf("no request: %w", err)
				return
			}
			if r.Stop {
				h.stop.Store(true)
				continue
			}
			requests <- r
		}
		// The parent is gone, or has seen enough. The other goroutine may be in a call that does not come back.
		os.Exit(0)
	}()
	for r := range requests {
		h.serve(r)
		if h.err != nil {
			return h.err
		}
	}
	select {
	case err := <-bad:
		return err
	default:
		return nil
	}
}

func (h *helper) send(m message) {
	if h.err == nil {
		h.err = h.enc.Encode(m)
	}
	if h.err == nil {
		h.err = h.out.Flush()
	}
}

func (h *helper) miss(what, format string, args ...any) {
	h.send(message{Missing: &fleet.Missing{What: what, Why: fmt.Sprintf(format, args...)}})
}

func (h *helper) fail(kind, format string, args ...any) {
	h.send(message{Failed: &failure{kind, clean(fmt.Sprintf(format, args...))}})
}

func (h *helper) serve(r request) {
	switch { // these have a library of their own
	case r.Load != nil:
		h.prepare(r.Load)
		h.send(message{Done: true})
		return
	case r.Run != nil:
		h.load(r.Run)
		h.send(message{Done: true})
		return
	case r.Words != nil:
		h.words(r.Words)
		h.send(message{Done: true})
		return
	}
	if h.lib == nil && !h.open(r.Library) {
		h.send(message{Done: true})
		return
	}
	switch {
	case r.Survey:
		h.survey()
	case r.Peers != nil:
		h.peers(r)
	case r.Clean != nil:
		h.clean(r)
	case r.Sample:
		h.sample(r)
	default:
		h.gpu(r)
	}
	h.send(message{Done: true})
}

// open loads the library, sees that it can be spoken to, and initialises it.
func (h *helper) open(path string) bool {
	var opts []nvml.LibraryOption
	name := libraryName
	if path != "" {
		name = path
		opts = append(opts, nvml.WithLibraryPath(path))
	}
	// The library is opened by hand first: go-nvml tells only that it could not, and calls nvmlInit whether there is one or not.
	lib := dl.New(name, dl.RTLD_LAZY|dl.RTLD_LOCAL)
	if err := lib.Open(); err != nil {
		h.fail(failLibrary, "NVIDIA's library cannot be opened: %v", err)
		return false
	}
	init := ""
	for _, symbol := range []string{"nvmlInit_v2", "nvmlInit"} {
		if init == "" && lib.Lookup(symbol) == nil {
			init = symbol
		}
	}
	if init == "" {
		h.fail(failSymbol, "%s has no nvmlInit: it is not NVIDIA's management library", name)
		return false
	}
	h.lib = nvml.New(opts...)
	h.send(message{Call: init})
	switch ret := h.lib.Init(); ret {
	case nvml.SUCCESS:
		return true
	case nvml.ERROR_DRIVER_NOT_LOADED:
		h.fail(failDriver, "NVIDIA's kernel driver is not loaded (%s: %s)", init, words(ret))
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		h.fail(failMismatch, "NVIDIA's library and kernel driver are of different versions (%s: %s)", init, words(ret))
	case nvml.ERROR_LIBRARY_NOT_FOUND:
		h.fail(failLibrary, "NVIDIA's library cannot be opened: %s", name)
	default:
		h.fail(failOther, "%s: %s", init, words(ret))
	}
	h.lib = nil
	return false
}

// symbol reports whether the library has a function: calling one that it has not would end the process.
func (h *helper) symbol(name string) bool {
	there, known := h.has[name]
	if !known {
		there = h.lib.Extensions().LookupSymbol(name) == nil
		h.has[name] = there
	}
	return there
}

// newest is the first of several versions of a function that the library has; go-nvml takes the same.
func (h *helper) newest(names ...string) string {
	for _, n := range names {
		if h.symbol(n) {
			return n
		}
	}
	return names[0]
}

// try looks a function up, says that it is called next, and calls it. A lost GPU ends all further calls.
func (h *helper) try(function string, call func() nvml.Return) nvml.Return {
	switch {
	case h.lost || h.err != nil:
		return nvml.ERROR_GPU_IS_LOST
	case !h.symbol(function):
		return nvml.ERROR_FUNCTION_NOT_FOUND
	}
	h.send(message{Call: function})
	ret := call()
	if ret == nvml.ERROR_GPU_IS_LOST {
		h.lost = true
		h.fail(failLost, "%s: %s", function, words(ret))
	}
	return ret
}

// ask is try for what belongs into the inventory: what is not told is entered as missing, with the reason.
func (h *helper) ask(what, function string, call func() nvml.Return) bool {
	ret := h.try(function, call)
	if ret != nvml.SUCCESS {
		h.note(what, function, ret)
	}
	return ret == nvml.SUCCESS
}

func (h *helper) note(what, function string, ret nvml.Return) {
	switch ret {
	case nvml.ERROR_GPU_IS_LOST: // said already
	case nvml.ERROR_FUNCTION_NOT_FOUND:
		h.miss(what, "the driver is too old for it: its library has no %s", function)
	case nvml.ERROR_NOT_SUPPORTED:
		h.miss(what, "not supported by this GPU and driver (%s)", function)
	default:
		h.miss(what, "%s: %s", function, words(ret))
	}
}

// words are NVML's for a return code; its own function for that may be absent, too.
func words(ret nvml.Return) string {
	table := map[nvml.Return]string{
		nvml.SUCCESS:             "done",
		nvml.ERROR_UNINITIALIZED: "not initialised", nvml.ERROR_INVALID_ARGUMENT: "invalid argument", nvml.ERROR_NOT_SUPPORTED: "not supported",
		nvml.ERROR_NO_PERMISSION: "no permission", nvml.ERROR_NOT_FOUND: "not found", nvml.ERROR_INSUFFICIENT_SIZE: "insufficient size",
		nvml.ERROR_INSUFFICIENT_POWER: "external power cables are not attached", nvml.ERROR_DRIVER_NOT_LOADED: "driver not loaded",
		nvml.ERROR_TIMEOUT: "timeout", nvml.ERROR_IRQ_ISSUE: "interrupts do not arrive", nvml.ERROR_LIBRARY_NOT_FOUND: "library not found",
		nvml.ERROR_FUNCTION_NOT_FOUND: "function not found", nvml.ERROR_CORRUPTED_INFOROM: "corrupted InfoROM", nvml.ERROR_GPU_IS_LOST: "GPU is lost",
		nvml.ERROR_RESET_REQUIRED: "GPU requires reset", nvml.ERROR_OPERATING_SYSTEM: "blocked by the operating system",
		nvml.ERROR_LIB_RM_VERSION_MISMATCH: "library and driver versions differ", nvml.ERROR_IN_USE: "in use", nvml.ERROR_MEMORY: "out of memory",
		nvml.ERROR_NO_DATA: "no data", nvml.ERROR_INSUFFICIENT_RESOURCES: "insufficient resources", nvml.ERROR_ARGUMENT_VERSION_MISMATCH: "argument version mismatch",
		nvml.ERROR_DEPRECATED: "deprecated", nvml.ERROR_NOT_READY: "not ready", nvml.ERROR_GPU_NOT_FOUND: "no GPU found",
		nvml.ERROR_INVALID_STATE: "invalid state", nvml.ERROR_UNKNOWN: "unknown error",
	}
	if w := table[ret]; w != "" {
		return w
	}
	return fmt.Sprintf("return code %d", ret)
}

// survey asks what concerns the machine.
func (h *helper) survey() {
	s := survey{Driver: fleet.GPUDriver{Name: "nvidia"}}
	h.ask("driver", "nvmlSystemGetDriverVersion", func() (ret nvml.Return) {
		s.Driver.Version, ret = h.lib.SystemGetDriverVersion()
		return ret
	})
	h.send(message{Survey: &s})
	h.ask("library", "nvmlSystemGetNVMLVersion", func() (ret nvml.Return) {
		s.Driver.Library, ret = h.lib.SystemGetNVMLVersion()
		return ret
	})
	h.ask("cuda", "nvmlSystemGetCudaDriverVersion_v2", func() nvml.Return {
		v, ret := h.lib.SystemGetCudaDriverVersion_v2()
		s.Driver.CUDA = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		return ret
	})
	h.ask("confidential_compute", "nvmlSystemGetConfComputeState", func() nvml.Return {
		state, ret := h.lib.SystemGetConfComputeState()
		s.Confidential = "off"
		if state.CcFeature != 0 {
			s.Confidential = "on"
		}
		if state.DevToolsMode != 0 {
			s.Confidential = "devtools"
		}
		if ret != nvml.SUCCESS {
			s.Confidential = ""
		}
		return ret
	})
	h.ask("count", h.newest("nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"), func() (ret nvml.Return) {
		s.GPUs, ret = h.lib.DeviceGetCount()
		return ret
	})
	s.Driver.Version, s.Driver.Library = clean(s.Driver.Version), clean(s.Driver.Library)
	h.send(message{Survey: &s})
}

// handle opens a GPU.
func (h *helper) handle(r request) (nvml.Device, bool) {
	var dev nvml.Device
	function := h.newest("nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetHandleByPciBusId")
	call := func() (ret nvml.Return) {
		dev, ret = h.lib.DeviceGetHandleByPciBusId(r.PCI)
		return ret
	}
	if r.PCI == "" {
		function = h.newest("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex")
		call = func() (ret nvml.Return) {
			dev, ret = h.lib.DeviceGetHandleByIndex(r.Index - 1)
			return ret
		}
	}
	switch ret := h.try(function, call); ret {
	case nvml.SUCCESS:
		return dev, true
	case nvml.ERROR_GPU_IS_LOST: // said already
	case nvml.ERROR_NOT_FOUND:
		h.fail(failNotFound, "%s: %s", function, words(ret))
	case nvml.ERROR_FUNCTION_NOT_FOUND:
		h.fail(failSymbol, "the driver is too old: its library has no %s", function)
	default:
		h.fail(failOther, "%s: %s", function, words(ret))
	}
	return nil, false
}

// peers asks every GPU how it reaches every other one.
func (h *helper) peers(r request) {
	caps, devices := nvml.P2P_CAPS_INDEX_READ, map[string]nvml.Device{}
	if r.NVLink {
		caps = nvml.P2P_CAPS_INDEX_NVLINK
	}
	for _, address := range r.Peers {
		h.lost = false
		var dev nvml.Device
		if h.ask("p2p", h.newest("nvmlDeviceGetHandleByPciBusId_v2", "nvmlDeviceGetHandleByPciBusId"), func() (ret nvml.Return) {
			dev, ret = h.lib.DeviceGetHandleByPciBusId(address)
			return ret
		}) {
			devices[address] = dev
		}
	}
	status := map[nvml.GpuP2PStatus]string{nvml.P2P_STATUS_OK: "ok", nvml.P2P_STATUS_CHIPSET_NOT_SUPPORTED: "chipset not supported",
		nvml.P2P_STATUS_GPU_NOT_SUPPORTED: "GPU not supported", nvml.P2P_STATUS_IOH_TOPOLOGY_NOT_SUPPORTED: "topology not supported",
		nvml.P2P_STATUS_DISABLED_BY_REGKEY: "disabled by the driver's settings", nvml.P2P_STATUS_NOT_SUPPORTED: "not supported"}
	out := map[string]map[string]string{}
	for _, from := range r.Peers {
		row := map[string]string{}
		for _, to := range r.Peers {
			if from == to || devices[from] == nil || devices[to] == nil {
				continue
			}
			h.lost = false
			if !h.ask("p2p", "nvmlDeviceGetP2PStatus", func() nvml.Return {
				s, ret := devices[from].GetP2PStatus(devices[to], caps)
				if row[to] = status[s]; row[to] == "" {
					row[to] = "unknown"
				}
				return ret
			}) {
				delete(row, to)
			}
		}
		if len(row) > 0 {
			out[from] = row
		}
	}
	h.send(message{Peers: out})
}
