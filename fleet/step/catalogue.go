package step

import (
	"encoding/json"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// CatalogueVersion is stored with every plan, so that a newer program knows what an older one meant.
const CatalogueVersion = 1

// Names of the steps.
const (
	BMCIdentify     = "bmc-identify"
	PowerOff        = "power-off"
	StayOff         = "stay-off"
	MediaInsert     = "media-insert"
	BootFromMedia   = "boot-from-media"
	PowerOn         = "power-on"
	AwaitAgent      = "await-agent"
	FetchPacks      = "fetch-packs"
	Inventory       = "inventory"
	CompareClass    = "compare-class"
	CompareAccepted = "compare-accepted"
	ReadBoard       = "read-baseboard"
	EraseDisks      = "erase-disks"
	VerifyErase     = "verify-erase"
	BurnStage       = "burn-stage"
	JudgeBurnIn     = "judge-burn-in"
	CleanBoot       = "clean-boot-entries"
	RestoreNS       = "restore-namespaces"
	CleanVars       = "clean-variables"
	CleanGPUs       = "clean-gpus"
	WriteImage      = "write-image"
	VerifyImage     = "verify-image"
	ConfigDrive     = "config-drive"
	BootEntry       = "boot-entry"
	AttachTenant    = "attach-tenant"
	ProbeWires      = "probe-wires"
	MediaEject      = "media-eject"
	BootFromDisk    = "boot-from-disk"
	AwaitReady      = "await-ready"
	Isolate         = "isolate"
	// OpenProvisioning and CloseProvisioning let the agent be spoken to, and nobody after it.
	OpenProvisioning  = "open-provisioning"
	CloseProvisioning = "close-provisioning"
	AgentPowerOff     = "agent-shutdown"
)

// Catalogue lists every step there is. Compose selects from it; the order within a plan is Compose's.
var Catalogue = []Step{
	{Name: BMCIdentify, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 3 * time.Minute, Tries: 4, Observes: true,
		Doc: "Reads the machine's identity from the BMC and refuses another machine than was enrolled."},
	{Name: PowerOff, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild, Release, Resume, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 4, EvenHeld: true,
		Doc: "Powers the machine off and reads the power state back."},
	{Name: StayOff, Uses: []Use{Clean}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 10 * time.Minute, Tries: 4, Observes: true,
		Doc: "Reads that the machine stays off for as long as its memory needs to forget, and records from when to when; fails where somebody switches it on."},
	{Name: MediaInsert, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 10 * time.Minute, Tries: 4,
		Doc: "Begins a new boot generation with a new single-use token and inserts its boot medium, ejecting what was there."},
	{Name: BootFromMedia, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 3 * time.Minute, Tries: 4,
		Doc: "Sets the one-time boot override to the medium and reads it back."},
	{Name: PowerOn, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild, Resume}, Side: OutOfBand, POST: true, OnCrash: Check, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 4,
		Doc: "Powers the machine on and reads the power state back."},
	{Name: AwaitAgent, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 30 * time.Minute, Tries: 1, Observes: true,
		Doc: "Waits for the agent of this boot generation and, where it does not come, says how far the boot went: medium never read, firmware never booted, or kernel died."},
	{Name: FetchPacks, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: InBand, OnCrash: Redo, Abort: AbortNow, Limit: 30 * time.Minute, Tries: 4,
		Doc: "Fetches the packs that the class wants from the server, proves signature, digest, kernel and processor of each, and puts it below /run/packs."},
	{Name: Inventory, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: InBand, OnCrash: Redo, Abort: AbortNow, Limit: 10 * time.Minute, Tries: 3, Observes: true,
		Doc: "Reads the machine into an inventory, which replaces the old one whole."},
	{Name: CompareClass, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: time.Minute, Tries: 1, Observes: true,
		Doc: "Compares the inventory with the class, the enrolled identity and the accepted devices, and raises a fault for each difference."},
	{Name: CompareAccepted, Uses: []Use{Clean}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: time.Minute, Tries: 1, Observes: true,
		Doc: "Compares what outlives an erase with the inventory that was accepted, such as GUIDs and firmware of HCAs, and raises a fault for each difference."},
	{Name: ReadBoard, Uses: []Use{Inspect}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 5 * time.Minute, Tries: 2, Observes: true,
		Doc: "Reads the GPU baseboard through the BMC, where it shows one, keeps what it read, compares it with the inventory, the class and the time before, and raises a fault for each difference."},
	{Name: RestoreNS, Uses: []Use{Clean}, Side: InBand, Agent: 3, Destroys: true, OnCrash: Redo, Abort: AbortAfter, Limit: 6 * time.Hour, Tries: 2,
		Doc: "Brings every accepted NVMe drive back to the namespaces that were accepted (number, size, size of block, attached), after a sanitize that is found in progress, and reads them back; a drive that cannot is a fault."},
	{Name: EraseDisks, Uses: []Use{Clean, Deploy}, Side: InBand, Destroys: true, OnCrash: Redo, Abort: AbortNever, Limit: 6 * time.Hour, Tries: 2,
		Doc: "Erases every accepted device by the best method that it has; others are not touched and are a fault."},
	{Name: VerifyErase, Uses: []Use{Clean, Deploy}, Side: InBand, OnCrash: Redo, Abort: AbortNow, Limit: time.Hour, Tries: 2, Observes: true,
		Doc: "Reads samples and both ends of every accepted device back and fails where old data or signatures are left."},
	{Name: CleanBoot, Uses: []Use{Clean}, Side: InBand, OnCrash: Redo, Abort: AbortAfter, Limit: 2 * time.Minute, Tries: 3,
		Doc: "Removes the firmware boot entries that earlier deployments left."},
	{Name: CleanVars, Uses: []Use{Clean}, Side: InBand, Agent: 3, OnCrash: Redo, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 3,
		Doc: "Removes the firmware's variables that `compare-accepted` found to be new and no firmware's own, and reads back that they are gone."},
	{Name: CleanGPUs, Uses: []Use{Clean}, Side: InBand, Agent: 2, OnCrash: Redo, Abort: AbortAfter, Limit: 10 * time.Minute, Tries: 2,
		Doc: "Puts MIG, ECC, compute mode, persistence, clocks and power limit of every GPU back, reads them back, and fails where a process or memory in use is left; without a driver it says so."},
	{Name: BurnStage, Uses: []Use{Burn}, Side: InBand, Agent: 2, OnCrash: Redo, Abort: AbortNow, Limit: fleet.MaxStageSeconds*time.Second + stageSlack, Tries: 2,
		Doc: "Runs the stressors of one stage of the burn-in for its time and measures, each second, what they and the machine do; a stage with `disks` overwrites accepted devices. Its limit is the stage's time and 30 minutes."},
	{Name: JudgeBurnIn, Uses: []Use{Burn}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 5 * time.Minute, Tries: 3, Observes: true,
		Doc: "Judges all that the stages measured against limits, the node's own fellows and the fleet, raises a fault for each part that failed, and keeps the report."},
	{Name: WriteImage, Uses: []Use{Deploy, Rebuild}, Side: InBand, Destroys: true, OnCrash: Redo, Abort: AbortNow, Limit: 2 * time.Hour, Tries: 3,
		Doc: "Streams the image to the root disk while its digest is verified; a truncated or altered stream fails."},
	{Name: VerifyImage, Uses: []Use{Deploy, Rebuild}, Side: InBand, OnCrash: Redo, Abort: AbortNow, Limit: time.Hour, Tries: 2, Observes: true,
		Doc: "Reads the written range back by direct I/O and compares its digest."},
	{Name: ConfigDrive, Uses: []Use{Deploy, Rebuild}, Side: InBand, Destroys: true, OnCrash: Redo, Abort: AbortAfter, Limit: 10 * time.Minute, Tries: 3,
		Doc: "Moves the GPT's backup to the disk's end and writes the config drive that the system reads at its first boot."},
	{Name: BootEntry, Uses: []Use{Deploy, Rebuild}, Side: InBand, OnCrash: Redo, Abort: AbortAfter, Limit: 2 * time.Minute, Tries: 3,
		Doc: "Writes the firmware's boot entry for the new system with BootNext, removing old ones of ours."},
	{Name: AttachTenant, Uses: []Use{Deploy, Rebuild, Resume}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 4,
		Doc: "Puts the node's fabric ports into the lease's partition, then its Ethernet ports for tenants into the lease's network, and reads them back, or leaves all in quarantine; without a driver it records that nothing was done, where the site says isolation: none."},
	{Name: ProbeWires, Uses: []Use{Inspect, Clean, Deploy, Rebuild}, Side: InBand, Agent: 3, OnCrash: Redo, Abort: AbortNow, Limit: 3 * time.Minute, Tries: 3, Observes: true,
		Doc: "Sends signed frames with every VLAN's tag from the node's Ethernet ports, and from a canary's in every VLAN: each port and the canary must hear each other in the port's own network and nowhere else; fails where a frame leaks or a port is dead, and where the canary does not hear itself it could not tell."},
	{Name: MediaEject, Uses: []Use{Deploy, Rebuild, Release, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 10 * time.Minute, Tries: 4,
		Doc: "Ejects the boot medium, waits until it is gone, and ends its address."},
	{Name: AgentPowerOff, Uses: []Use{Clean, Burn, Deploy, Rebuild}, Side: InBand, Unseen: true, OnCrash: Redo, Abort: AbortAfter, Limit: 2 * time.Minute, Tries: 1,
		Doc: "Asks the agent to sync its disks and power the machine off in order."},
	{Name: BootFromDisk, Uses: []Use{Deploy, Rebuild, Resume, Release, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 3 * time.Minute, Tries: 4,
		Doc: "Removes the boot override, so that the machine starts what was written."},
	{Name: AwaitReady, Uses: []Use{Deploy, Rebuild, Resume}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNow, Limit: 45 * time.Minute, Tries: 1, Observes: true,
		Doc: "Waits until the tenant's system is what the lease calls ready, and records what showed it."},
	{Name: Isolate, Uses: []Use{Release, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortNever, Limit: 10 * time.Minute, Tries: 10, EvenHeld: true,
		Doc: "Puts the node's Ethernet ports, then its fabric ports into quarantine and reads them back; without a driver it records that nothing was done, where the site says isolation: none."},
	{Name: OpenProvisioning, Uses: []Use{Inspect, Clean, Burn, Deploy, Rebuild}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 4,
		Doc: "Puts the node's ports for provisioning into the provisioning network, so that its agent reaches the server, and reads them back."},
	{Name: CloseProvisioning, Uses: []Use{Clean, Burn, Deploy, Rebuild, Undo}, Side: OutOfBand, OnCrash: Redo, Abort: AbortAfter, Limit: 5 * time.Minute, Tries: 4,
		Doc: "Puts the node's ports for provisioning into quarantine, or into the tenant's network where the wire is shared, and reads them back while the machine is off."},
}

// Find returns the declaration of a step.
func Find(name string) (Step, bool) {
	for _, s := range Catalogue {
		if s.Name == name {
			return s, true
		}
	}
	return Step{}, false
}

// stageSlack is what a stage of a burn-in may take beyond its time: reading the machine before and after, each of which the agent gives up after 10 minutes,
// stopping what runs, and making drives as clean as they were.
const stageSlack = 30 * time.Minute

// LimitOf is how long one try of a run's step may take. A stage of a burn-in takes as long as its parameters say.
func LimitOf(run fleet.StepRun) time.Duration {
	decl, _ := Find(run.Name)
	var p BurnParams
	if run.Name == BurnStage && json.Unmarshal(run.Params, &p) == nil && p.Stage.Seconds > 0 {
		return min(decl.Limit, time.Duration(p.Stage.Seconds)*time.Second+stageSlack)
	}
	return decl.Limit
}
