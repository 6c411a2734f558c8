package fleet

import (
	"slices"
	"time"
)

// Burn-in has three documents. A profile says what is run for how long. A stage's part says what was measured, and judges nothing: the agent writes it.
// A report says what the parts mean: fleet/verdict writes it, the same from a server's parts as from those of a fixture.

// BurnProfile says what a burn-in runs. Rounds repeat the stages, so that a crash loses one stage at most and every part sees heat and cold.
type BurnProfile struct {
	Name string `json:"name"`
	// Doc says in one sentence when to use it.
	Doc string `json:"doc,omitempty"`
	// Rounds is how often Stages are run, at least 1.
	Rounds int         `json:"rounds"`
	Stages []BurnStage `json:"stages"`
	// Limits are used before those of the class.
	Limits []Limit `json:"limits,omitempty"`
}

// BurnStage is one piece of a round: stressors that run side by side. A stage without any reads counters only.
type BurnStage struct {
	Name string `json:"name"`
	// Stress names stressors of Stressors.
	Stress  []string `json:"stress,omitempty"`
	Seconds int      `json:"seconds"`
}

// Stressors that a stage may name.
const (
	StressCPU        = "cpu"         // all cores; results compared between cores
	StressMemory     = "memory"      // patterns and bandwidth for each NUMA node
	StressDisks      = "disks"       // verified data by direct I/O; overwrites accepted disks
	StressNetwork    = "network"     // HCAs and NICs: counters, loopback and pairs
	StressGPUMemory  = "gpu-memory"  // HBM patterns
	StressGPUCompute = "gpu-compute" // integer and floating point; results compared between GPUs
	StressGPUTensor  = "gpu-tensor"  // tensor cores; results compared between GPUs
	StressGPUCopy    = "gpu-copy"    // host-device and peer copies, verified
	StressGPUPulse   = "gpu-pulse"   // load steps in phase over the node's GPUs; only where a profile asks for it
)

// Stressor says what a stress needs and does.
type Stressor struct {
	Name string
	// Part is the kind of component that it loads: cpu, dimm, disk, hca, gpu.
	Part string
	// Destroys: it overwrites disks, of accepted devices only.
	Destroys bool
	Doc      string
}

// Stressors are all that there are.
var Stressors = []Stressor{
	{StressCPU, "cpu", false, "computes on all cores and compares the results between them, so that a core that computes wrongly is named"},
	{StressMemory, "dimm", false, "writes and verifies patterns in all free memory, and measures the bandwidth of each NUMA node"},
	{StressDisks, "disk", true, "writes and verifies data on accepted disks by direct I/O, and measures bandwidth and latency"},
	{StressNetwork, "hca", false, "loads HCAs and NICs where something is there to do it with, and watches their counters"},
	{StressGPUMemory, "gpu", false, "writes and verifies patterns in the GPUs' memory"},
	{StressGPUCompute, "gpu", false, "computes integers and floating point on all GPUs, whose results must be equal bit by bit"},
	{StressGPUTensor, "gpu", false, "multiplies matrices on the tensor cores of all GPUs, whose results must be equal bit by bit"},
	{StressGPUCopy, "gpu", false, "copies between host and GPU and between GPUs, and verifies what arrived"},
	{StressGPUPulse, "gpu", false, "alternates load and rest in phase over the GPUs of one node"},
}

// FindStressor returns the declaration of a stressor.
func FindStressor(name string) (Stressor, bool) {
	i := slices.IndexFunc(Stressors, func(s Stressor) bool { return s.Name == name })
	if i < 0 {
		return Stressor{}, false
	}
	return Stressors[i], true
}

// Reasons in BurnPart.Stopped begin with one of these: a judge takes no other as an excuse.
const (
	StoppedAborted = "aborted"
	StoppedLimit   = "time limit"
	StoppedWrong   = "wrong data"
	StoppedKernel  = "kernel log"
)

// BurnPart is what one stage of one round measured.
type BurnPart struct {
	Version int    `json:"version"`
	Profile string `json:"profile"`
	Stage   string `json:"stage"`
	// Round counts from 1.
	Round   int       `json:"round"`
	BeganAt time.Time `json:"began_at"`
	EndedAt time.Time `json:"ended_at"`
	// Fixture names what the machine is made of where it is none: a directory or a profile's name. "" is real hardware.
	Fixture string `json:"fixture,omitempty"`
	// Speed is how much faster than the clock a fixture's time went; 0 is 1.
	Speed int `json:"speed,omitempty"`
	// Planned is for how many seconds the stage was to run.
	Planned int `json:"planned_seconds"`
	// Stopped says why it ended before, "" where it did not.
	Stopped string `json:"stopped,omitempty"`
	// Before and After are the machine as it was read at the stage's ends; counters are in them.
	Before *Inventory `json:"before,omitempty"`
	After  *Inventory `json:"after,omitempty"`
	// Ran names each stressor that ran and what it ran with.
	Ran      []StressRun `json:"ran,omitempty"`
	Measured []Measured  `json:"measured,omitempty"`
	// Kernel is what the kernel's log said during the stage.
	Kernel []KernelFinding `json:"kernel,omitempty"`
	Series []Series        `json:"series,omitempty"`
	// Untold is what could not be measured, and why.
	Untold []Untold `json:"untold,omitempty"`
}

// StressRun is one stressor's run. Engine is what did the work: builtin, builtin-ptx, fio, stress-ng, nvbandwidth, perftest, ...
type StressRun struct {
	Stress  string  `json:"stress"`
	Engine  string  `json:"engine"`
	Version string  `json:"version,omitempty"`
	Seconds float64 `json:"seconds"`
}

// Measured is one value of one component. Check is one of MeasuredChecks; Unit is that check's.
type Measured struct {
	Check     string  `json:"check"`
	Component string  `json:"component"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	// N is how many samples or passes the value is made of, Min and Max their range.
	N   int64   `json:"n,omitempty"`
	Min float64 `json:"min,omitempty"`
	Max float64 `json:"max,omitempty"`
	// Details are what tells where in the component and how, at most 20 lines of at most 200 bytes: SM, tile, address, bits, slot.
	Details []string `json:"details,omitempty"`
	Engine  string   `json:"engine,omitempty"`
}

// Series is one value of one component over time. Samples are gathered into buckets of equal length, whose length doubles when there are too many, so
// that 72 hours are no larger than one.
type Series struct {
	Name      string    `json:"name"` // temperature, power, sm-clock, memory-temperature, ...
	Component string    `json:"component"`
	Unit      string    `json:"unit"`
	Start     time.Time `json:"start"`
	// Bucket is the length of one in seconds.
	Bucket float64 `json:"bucket_seconds"`
	// Mean, Min and Max have one entry for each bucket; one without samples has null in all three.
	Mean []*float64 `json:"mean"`
	Min  []*float64 `json:"min"`
	Max  []*float64 `json:"max"`
}

// Sample is one reading of a value that changes all the time; Series is what many come to.
type Sample struct {
	Name      string  `json:"name"`
	Component string  `json:"component"`
	Unit      string  `json:"unit"`
	Value     float64 `json:"value"`
}

// Untold is a check that told nothing. A cause that lies in the platform condemns no component.
type Untold struct {
	Check     string `json:"check"`
	Component string `json:"component"`
	// Skipped: there was nothing to measure with or on, as foreseen. Otherwise it was an error: could not tell.
	Skipped bool `json:"skipped,omitempty"`
	// Cause is a stable word: no-driver, driver-mismatch, fabric-not-ready, no-library, no-tool, no-device, crashed, hung, denied, no-memory, aborted, other.
	Cause string `json:"cause"`
	Words string `json:"words"`
}

// Outcome of a check, and of a whole report.
type Outcome string

const (
	Pass Outcome = "pass"
	Warn Outcome = "warn"
	Fail Outcome = "fail"
	// CouldNotTell is the outcome where something kept the check from telling: no pass, and nobody is condemned.
	CouldNotTell Outcome = "error"
	Skip         Outcome = "skip"
)

// Check is one judgement of a report.
type Check struct {
	// ID is the stable name of what was looked at: a measured check's, or a counter's.
	ID        string  `json:"id"`
	Component string  `json:"component"`
	Outcome   Outcome `json:"outcome"`
	// Value is what was measured, nil where the check is no number.
	Value *float64 `json:"value,omitempty"`
	Unit  string   `json:"unit,omitempty"`
	// Limit is what Value was held against, nil where there is none.
	Limit *CheckLimit `json:"limit,omitempty"`
	// Code is the fault's, for warn, fail and error.
	Code string `json:"code,omitempty"`
	// Words is the judgement in one sentence; Evidence what it rests on.
	Words    string   `json:"words,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
	// Do is what to do: none, retest, reset, reboot, cold-cycle, reseat, cable, replace, update, configure.
	Do string `json:"do,omitempty"`
	// Replace names the part to send back, by slot and serial, where Do says so.
	Replace string `json:"replace,omitempty"`
	Engine  string `json:"engine,omitempty"`
	Stage   string `json:"stage,omitempty"`
	Round   int    `json:"round,omitempty"`
}

// CheckLimit is a limit as it was used. Against says whose it is: class, profile, peers (this node's own fellows) or fleet.
type CheckLimit struct {
	Value   float64 `json:"value"`
	Least   bool    `json:"least"` // the least that passes; otherwise the most
	Unit    string  `json:"unit"`
	Against string  `json:"against"`
	Source  string  `json:"source"`
}

// BurnReportVersion is that of reports that are written; a reader refuses newer ones.
const BurnReportVersion = 1

// BurnReport is what a burn-in came to.
type BurnReport struct {
	Version   int         `json:"version"`
	Node      string      `json:"node,omitempty"` // the node's name; "" where no server ran it
	Operation OperationID `json:"operation,omitempty"`
	Profile   string      `json:"profile"`
	Class     string      `json:"class,omitempty"`
	Fixture   string      `json:"fixture,omitempty"`
	Program   string      `json:"program,omitempty"`
	BeganAt   time.Time   `json:"began_at"`
	EndedAt   time.Time   `json:"ended_at"`
	// Finished is false while stages are still to come, or where it was stopped: then Stopped says why.
	Finished bool   `json:"finished"`
	Stopped  string `json:"stopped,omitempty"`
	// Verdict is the worst of the checks: fail, then error, then warn, then pass. A report that did not finish is never a pass.
	Verdict Outcome `json:"verdict"`
	// Headline is the verdict in one sentence: what is wrong, where, and what to do.
	Headline string     `json:"headline"`
	Machine  BurnedNode `json:"machine"`
	Stages   []StageRun `json:"stages"`
	// Restarts are what no stage measured: how often the machine went down under load.
	Restarts []BurnRestart `json:"restarts,omitempty"`
	Checks   []Check       `json:"checks"`
	Series   []Series      `json:"series,omitempty"`
	// Kernel is what the kernel's log said in all stages.
	Kernel []KernelFinding `json:"kernel,omitempty"`
}

// BurnedNode is who was burned in: a report counts for exactly these parts.
type BurnedNode struct {
	Vendor   string       `json:"vendor,omitempty"`
	Model    string       `json:"model,omitempty"`
	Serial   string       `json:"serial,omitempty"`
	UUID     string       `json:"uuid,omitempty"`
	BIOS     string       `json:"bios,omitempty"`
	Kernel   string       `json:"kernel,omitempty"`
	Driver   string       `json:"driver,omitempty"`
	Parts    []BurnedPart `json:"parts"`
	Topology []Rail       `json:"topology,omitempty"`
}

// BurnedPart is one component of it.
type BurnedPart struct {
	Component string `json:"component"`
	Model     string `json:"model,omitempty"`
	Serial    string `json:"serial,omitempty"`
	Firmware  string `json:"firmware,omitempty"`
	// PCIAddress is where it sits: rails name GPUs by it.
	PCIAddress string `json:"pci_address,omitempty"`
	// NVLinks is how many a GPU has, up or not.
	NVLinks int `json:"nvlinks,omitempty"`
}

// BurnRestart is a machine that went down, or whose agent fell silent, while a stage ran on it.
type BurnRestart struct {
	Stage string    `json:"stage"`
	Round int       `json:"round"`
	At    time.Time `json:"at,omitzero"`
	// Why is what was seen of it.
	Why string `json:"why"`
}

// StageRun is one stage as it ran.
type StageRun struct {
	Stage   string      `json:"stage"`
	Round   int         `json:"round"`
	BeganAt time.Time   `json:"began_at"`
	EndedAt time.Time   `json:"ended_at"`
	Planned int         `json:"planned_seconds"`
	Stopped string      `json:"stopped,omitempty"`
	Ran     []StressRun `json:"ran,omitempty"`
}
