package step

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// MaxParams is the most bytes that a step's parameters may have in the journal.
const MaxParams = 32 << 10

// PlanFacts are what Compose looks at: everything about one node that decides which steps a plan needs.
type PlanFacts struct {
	Node fleet.Node
	// Class is the node's class; its zero value means that the node has none.
	Class fleet.Class
	Site  fleet.Site
	// Power is "on", "off", or "" where the BMC did not say.
	Power string
	// AgentUp: the agent of the node's present boot generation answers.
	AgentUp bool
	// AgentOld is set by Compose where that agent does not understand all of the plan, which then boots the node anew.
	AgentOld bool
	// Image, Lease and Member are set for deploy, rebuild and resume.
	Image  *fleet.Image
	Lease  *fleet.Lease
	Member *fleet.Member
	// Network is the one that Member has addresses of, nil where it has none.
	Network *fleet.Network
	// Packs are all that the server has; only those that the class names are looked at.
	Packs []fleet.Pack
	// UserDataPath is where, on the agent's own server, it fetches the user-data.
	UserDataPath string
	// Profiles are the burn-in profiles that exist.
	Profiles []fleet.BurnProfile
	// Canary: one is in the networks of the node's Ethernet ports.
	Canary bool
}

// Request is what a person may choose about a plan.
type Request struct {
	// OutOfBand inspects through the BMC alone.
	OutOfBand bool
	// AllowReboot lets an inspection restart a machine that runs.
	AllowReboot bool
	// Profile is what a burn-in is to run in place of what is due; "" is that.
	Profile string
}

// Planned is one step of a plan and why it is there.
type Planned struct {
	Name     string          `json:"name"`
	Side     string          `json:"side"`
	Why      string          `json:"why"`
	Destroys bool            `json:"destroys_data,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"`
}

// Plan is an ordered selection of steps for one node.
type Plan struct {
	Use       Use
	Node      fleet.NodeID
	Catalogue int
	Steps     []Planned
	// Digest is "sha256:" over the canonical JSON of all that the plan would do, with every parameter; why a step is there is left out.
	Digest string
	// Reboots counts the power-on self tests that the machine goes through.
	Reboots  int
	Destroys bool
	// Erases lists the devices that the plan erases or may write.
	Erases []fleet.AcceptedDevice
}

// composer collects steps; the first error sticks.
type composer struct {
	plan Plan
	hash []any
	err  error
}

// step appends a step.
func (c *composer) step(name, why string, params any) {
	s, ok := Find(name)
	if !ok || !slices.Contains(s.Uses, c.plan.Use) {
		panic("step: " + name + " is not declared for " + string(c.plan.Use))
	}
	p := Planned{Name: name, Side: s.Side, Why: why, Destroys: s.Destroys}
	if params != nil {
		b, err := json.Marshal(params)
		if err == nil && len(b) > MaxParams {
			err = fleet.Errorf(fleet.Invalid, "MC-PLAN-PARAMS", "the parameters of %s have %d bytes, the journal takes %d", name, len(b), MaxParams).
				WithHint("shorten network data, SSH keys or metadata; user-data has no such limit")
		}
		if err != nil && c.err == nil {
			c.err = err
		}
		p.Params = b
	}
	if s.POST {
		c.plan.Reboots++
	}
	c.plan.Destroys = c.plan.Destroys || s.Destroys
	c.plan.Steps = append(c.plan.Steps, p)
	c.hash = append(c.hash, name, params)
}

// Compose selects the steps that use needs under these facts. It is pure: the same facts give the same plan and the same digest.
func Compose(use Use, f PlanFacts, r Request) (Plan, error) {
	c := &composer{plan: Plan{Use: use, Node: f.Node.ID, Catalogue: CatalogueVersion}}
	err := c.compose(use, f, r)
	if err == nil && f.AgentUp && !c.known(f.Node.Boot.Speaks()) {
		f.AgentOld = true
		c = &composer{plan: Plan{Use: use, Node: f.Node.ID, Catalogue: CatalogueVersion}}
		err = c.compose(use, f, r)
	}
	if err != nil {
		return Plan{}, err
	}
	// Node, uses and catalogue are part of what was shown, too.
	b, err := json.Marshal([]any{c.plan.Use, c.plan.Node, c.plan.Catalogue, c.hash, c.plan.Erases})
	if err != nil {
		return Plan{}, fmt.Errorf("digest of the plan: %w", err)
	}
	sum := sha256.Sum256(b)
	c.plan.Digest = "sha256:" + hex.EncodeToString(sum[:])
	return c.plan, nil
}

// known reports whether an agent that speaks that version understands every step of the plan.
func (c *composer) known(speaks int) bool {
	for _, s := range c.plan.Steps {
		if needs, err := AgentNeeds(s.Name, s.Params); err != nil || needs > speaks {
			return false
		}
	}
	return true
}

func (c *composer) compose(use Use, f PlanFacts, r Request) error {
	var err error
	switch use {
	case Inspect:
		err = c.inspect(f, r)
	case Clean:
		err = c.clean(f)
	case Burn:
		err = c.burn(f, r)
	case Deploy, Rebuild:
		err = c.deploy(f)
	case Release:
		c.release(f)
	case Resume:
		err = c.resume(f)
	case Undo:
		err = c.undo(f)
	default:
		err = fleet.Errorf(fleet.Invalid, "MC-PLAN-USE", "there is no plan for %q", use).
			WithHint("plans are for: inspect, clean, burn, deploy, rebuild, release, resume, undo")
	}
	if err == nil {
		err = c.err
	}
	return err
}

// boot brings the agent up where it is not, for one POST.
func (c *composer) boot(f PlanFacts, why string) {
	if f.AgentUp && !f.AgentOld {
		return
	}
	if f.AgentOld {
		why = "the agent that is up is of an older version and does not know all that follows"
	}
	n := f.Node
	c.identify(n, "another machine at this address must not be touched")
	if f.Power != "off" {
		c.step(PowerOff, "the machine is on, or its BMC did not say", PowerParams{})
	}
	if cold := f.Class.Clean; c.plan.Use == Clean && cold.Memory == fleet.CleanColdCycle {
		c.step(StayOff, "the class wants memory cleared by a cold start", StayOffParams{Seconds: cold.OffSeconds()})
	}
	if n.Opens() {
		c.step(OpenProvisioning, "the agent reaches the server by the provisioning network", nil)
	}
	c.step(MediaInsert, why, nil)
	c.step(BootFromMedia, "for one boot only", nil)
	c.step(PowerOn, "the agent boots from the medium", nil)
	c.step(AwaitAgent, "the next steps run on the machine", nil)
}

// packs lets the agent fetch what the class wants, where this boot does not have it yet.
func (c *composer) packs(f PlanFacts) {
	if len(f.Class.Packs) == 0 {
		return
	}
	var p PacksParams
	var digests []string
	for _, ref := range f.Class.Packs {
		k, ok := fleet.FindPack(f.Packs, ref)
		if !ok {
			if c.err == nil {
				c.err = fleet.Errorf(fleet.Conflict, "MC-PACK-UNKNOWN", "class %s wants the pack %s, and the server has none of that name", f.Class.Name, ref).
					WithHint("metalctl pack list; add it: metalctl pack add FILE")
			}
			return
		}
		p.Packs = append(p.Packs, PackParams{Name: k.Name, Version: k.Version, SHA256: k.SHA256, SizeBytes: k.SizeBytes, UnpackedBytes: k.UnpackedBytes})
		digests = append(digests, k.SHA256)
	}
	if f.AgentUp && !f.AgentOld && f.Node.Boot.Packs == fleet.PackMark(digests) {
		return
	}
	c.step(FetchPacks, fmt.Sprintf("class %s wants %s", f.Class.Name, strings.Join(f.Class.Packs, ", ")), p)
}

func (c *composer) look(why string) {
	c.step(Inventory, why, nil)
	c.step(CompareClass, "parts may have failed, moved or been swapped", nil)
}

// probe has packets show where the node's ports are, where somebody is there to hear them.
func (c *composer) probe(f PlanFacts) {
	if f.Canary {
		c.step(ProbeWires, "what a switch says of a port, packets show", nil)
	}
}

func (c *composer) inspect(f PlanFacts, r Request) error {
	n := f.Node
	if r.OutOfBand {
		c.identify(n, "asked to look through the BMC alone")
		return nil
	}
	if !f.AgentUp && f.Power != "off" && !r.AllowReboot && !n.AllowReboot {
		return fleet.Errorf(fleet.Conflict, "MC-NODE-RUNNING", "%s is not known to be off, and inspecting it in-band would restart it", n.Name).
			WithHint("metalctl node inspect %s --out-of-band, or --allow-reboot, or power it off first", n.Name)
	}
	c.boot(f, "no agent is up on the machine")
	c.packs(f)
	c.look("the inventory is read from inside")
	c.probe(f)
	c.step(ReadBoard, "the BMC may see parts that the host does not, and the other way round", nil)
	return nil
}

func (c *composer) clean(f PlanFacts) error {
	if f.Node.Inventory == "" {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-INVENTORY", "nothing is known of %s, so nothing may be erased", f.Node.Name).
			WithHint("metalctl node inspect %s", f.Node.Name)
	}
	c.plan.Erases = f.Node.Accepted
	why := "no agent is up on the machine"
	if f.Class.Clean.Memory == fleet.CleanColdCycle {
		f.AgentUp, f.AgentOld, why = false, false, "the machine starts cold"
	}
	c.boot(f, why)
	c.packs(f)
	c.namespaces(f.Node)
	c.look("the devices are looked at once more before any is erased")
	c.step(CompareAccepted, "a tenant may have changed what outlives an erase", nil)
	c.probe(f)
	c.erase(f, "")
	c.step(CleanBoot, "entries of earlier systems lead nowhere now", nil)
	if f.Node.AcceptedVariables {
		c.step(CleanVars, "a tenant may have left variables in the firmware", nil)
	}
	if f.Class.HasGPUs() {
		c.step(CleanGPUs, "the class has GPUs, and a tenant may have left settings or processes on them", f.Class.Clean.GPUs.Filled())
		c.step(Inventory, "what was put back is seen", nil)
		c.step(CompareClass, "what a tenant left on a GPU was a difference, and is none now", nil)
	}
	// A burn-in that follows takes the agent over; what is accepted has none that counts.
	if n := f.Node; !f.Class.BurnInDue(n) && (f.Class.BurnIn == fleet.NoBurnIn || n.State != fleet.Managed) {
		c.rest(f)
	}
	return nil
}

// rest switches the machine off where its class wants that of nodes that nobody uses.
func (c *composer) rest(f PlanFacts) {
	if f.Class.PowerOffAvailable {
		c.step(AgentPowerOff, "the class wants available nodes off", nil)
		c.step(PowerOff, "off is what the BMC reads back", PowerParams{WaitSeconds: 60})
		if f.Node.Opens() {
			c.step(CloseProvisioning, "nobody is spoken to while it is off", nil)
		}
	}
}

// namespaces brings NVMe drives back to what was accepted, before anybody compares them.
func (c *composer) namespaces(n fleet.Node) {
	var p NamespacesParams
	for _, d := range n.Accepted {
		if d.BlockBytes > 0 {
			p.Accepted = append(p.Accepted, d)
		}
	}
	if len(p.Accepted) > 0 {
		c.step(RestoreNS, fmt.Sprintf("a tenant may have changed the namespaces of NVMe drives, of which %d were accepted", len(p.Accepted)), p)
	}
}

// erase erases every accepted device to the level of the node's class, and proves it.
func (c *composer) erase(f PlanFacts, why string) {
	p := EraseParams{Accepted: f.Node.Accepted, Level: first(f.Class.EraseLevel, "clear")}
	least := p.Level
	if p.AcceptFormat = f.Class.AcceptFormat && p.Level == "purge"; p.AcceptFormat {
		least += " or an NVMe format"
	}
	c.step(EraseDisks, fmt.Sprintf("%s%d accepted devices, at least %s", why, len(p.Accepted), least), p)
	c.step(VerifyErase, "an erase counts when it was read back", p)
}

func (c *composer) deploy(f PlanFacts) error {
	if f.Image == nil || f.Lease == nil || f.Member == nil {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-LEASE", "%s belongs to no lease with an image, so there is nothing to deploy", f.Node.Name).
			WithHint("metalctl lease create --node %s --image IMAGE", f.Node.Name)
	}
	n, req := f.Node, f.Lease.Request
	if len(n.Accepted) == 0 {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-DEVICES", "no device of %s was accepted, so none may be written", n.Name).
			WithHint("metalctl node accept %s", n.Name)
	}
	data := req.NetworkData
	if len(f.Member.Addresses) > 0 {
		if f.Network == nil {
			return fleet.Errorf(fleet.Conflict, "MC-NET-ADDRESS", "%s has addresses of the network %s, which does not exist", n.Name, req.Network).WithHint("metalctl network list")
		}
		var err error
		if data, err = NetworkData(*f.Network, n, f.Member.Addresses); err != nil {
			return err
		}
	}
	image := ImageParams{Image: *f.Image, Root: n.RootDisk, Accepted: n.Accepted, Origins: f.Site.Origins, Denied: f.Site.Denied}
	root := RootParams{Root: n.RootDisk, Accepted: n.Accepted}
	drive := ConfigDriveParams{Root: n.RootDisk, Accepted: n.Accepted, InstanceID: instanceID(f), Hostname: f.Member.Hostname,
		SSHKeys: req.SSHKeys, Meta: req.Meta, Network: data, UserDigest: f.Lease.UserData, Form: req.ConfigDrive}
	c.plan.Erases = n.Accepted
	c.boot(f, "no agent is up on the machine")
	c.packs(f)
	c.look("parts may have failed, moved or been swapped, and the class may have changed, since the node was chosen")
	if req.WipeData && c.plan.Use == Deploy {
		c.erase(f, "the lease asks for wiped data disks: ")
	}
	c.step(WriteImage, fmt.Sprintf("the lease asks for image %s", f.Image.Name), image)
	c.step(VerifyImage, "a write counts when it was read back", image)
	c.step(ConfigDrive, "the system learns its name, keys and user-data from it", drive)
	c.step(BootEntry, "the firmware starts what was written", root)
	c.step(AttachTenant, "the tenant's wires, while the agent can still be asked", nil)
	c.probe(f)
	c.step(MediaEject, "the next boot must not find the agent again", nil)
	c.step(AgentPowerOff, "disks are synced and the machine goes down in order", nil)
	c.step(PowerOff, "off is what the BMC reads back", PowerParams{WaitSeconds: 60})
	if n.Opens() {
		c.step(CloseProvisioning, "the tenant's system must not reach the provisioning network", nil)
	}
	c.start(f)
	return nil
}

// start boots the tenant's system from disk.
func (c *composer) start(f PlanFacts) {
	c.step(BootFromDisk, "no override may lead away from the disk", nil)
	c.step(PowerOn, "the tenant's system starts", nil)
	ready := f.Lease.Request.Ready
	if ready == "" {
		ready = fleet.ReadyOS
	}
	c.step(AwaitReady, fmt.Sprintf("ready means %s for this lease", ready), ReadyParams{Ready: ready})
}

func (c *composer) release(f PlanFacts) {
	c.step(Isolate, "isolation comes before everything else", nil)
	c.step(PowerOff, "nothing of the tenant runs on", PowerParams{})
	if u := f.Node.Undo; u != nil && u.Override {
		c.step(BootFromDisk, "a plan that was given up left an override", nil)
	}
	if u := f.Node.Undo; f.Node.Boot.MediaID != "" || u != nil && u.Medium {
		c.step(MediaEject, "a boot medium is still announced", nil)
	}
}

// undo puts right what the node's record names, no more: the machine goes off first, then nothing may lead it to the medium, then the medium goes.
func (c *composer) undo(f PlanFacts) error {
	n := f.Node
	if !n.Undo.Left() {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-UNDO", "nothing of a plan that was given up is left on %s", n.Name).WithHint("metalctl node show %s", n.Name)
	}
	if n.Undo.Wires {
		c.step(Isolate, "the plan may have given the ports to the tenant", nil)
	}
	if n.Undo.Provisioning && !n.Undo.Power && !n.Undo.Wires {
		c.step(CloseProvisioning, "a plan that was given up left it open", nil)
	}
	if !n.Undo.Power && !n.Undo.Override && !n.Undo.Medium {
		return nil
	}
	c.identify(n, "another machine at this address must not be touched")
	if n.Undo.Power {
		c.step(PowerOff, "it runs what a plan booted that was given up", PowerParams{})
		if n.Opens() && !n.Undo.Wires {
			c.step(CloseProvisioning, "nobody is spoken to while it is off", nil)
		}
	}
	if n.Undo.Override {
		c.step(BootFromDisk, "no override may lead to the medium again", nil)
	}
	if n.Undo.Medium {
		c.step(MediaEject, "its boot was given up", nil)
	}
	return nil
}

func (c *composer) identify(n fleet.Node, why string) {
	c.step(BMCIdentify, why, IdentifyParams{Serial: first(n.Expect.Serial, n.BMC.Serial), UUID: first(n.Expect.UUID, n.BMC.UUID)})
}

func (c *composer) resume(f PlanFacts) error {
	if f.Lease == nil || f.Member == nil {
		return fleet.Errorf(fleet.Conflict, "MC-PLAN-LEASE", "%s belongs to no lease, so there is nothing to resume", f.Node.Name)
	}
	c.step(AttachTenant, "the tenant comes back to its wires", nil)
	if f.Power != "off" {
		c.step(PowerOff, "the system starts from its disk anew", PowerParams{})
	}
	c.start(f)
	return nil
}

// instanceID changes with every lease, so that a system image runs its first-boot work for each, and not at each rebuild of the same.
func instanceID(f PlanFacts) string {
	return string(f.Lease.ID) + "-" + first(f.Member.Identity, f.Member.Name)
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
