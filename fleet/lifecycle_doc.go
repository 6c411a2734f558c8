package fleet

import (
	"fmt"
	"strings"
)

// effectTexts are the effects in the words of the documentation, in the order of their bits.
var effectTexts = []struct {
	effect Effect
	text   string
}{
	{MarkDirty, "dirty names the lease"},
	{ClearDirty, "dirty is cleared"},
	{DropLease, "leaves the lease"},
	{StaleBurn, "burn-in counts no longer"},
	{LoseIsolation, "isolation must be proven anew"},
	{UndoBoot, "the boot medium, the boot override and the provisioning network are taken back"},
	{UndoPower, "the machine goes off if the plan used an agent that we booted"},
	{GoOff, "the machine goes off"},
	{UndoWires, "its ports go back into quarantine"},
}

// String lists what the effect does, "" where it does nothing.
func (e Effect) String() string {
	var out []string
	for _, t := range effectTexts {
		if e&t.effect != 0 {
			out = append(out, t.text)
		}
	}
	return strings.Join(out, ", ")
}

// LifecycleMarkdown is docs/lifecycle.md: the tables of nodes and leases as people read them.
func LifecycleMarkdown() string {
	var b strings.Builder
	b.WriteString(`# The lifecycle of nodes and leases

Generated from the tables in fleet/lifecycle.go and fleet/lease.go, which the program itself follows. To change it, change them and run
` + "`make generate`" + `.

## Nodes

The state says where a node is. Faults, a hold and protection are separate. Two facts are durable: **dirty** names whose data the disks may
hold (a lease, or ` + "`unknown`" + ` at enrolment) and is cleared only by ` + "`cleaning done`" + `; **isolated** is set only by a read-back of the wires.

| from | verb | needs | to | effect | why |
| --- | --- | --- | --- | --- | --- |
`)
	for _, t := range Lifecycle {
		from := make([]string, len(t.From))
		for i, s := range t.From {
			from[i] = string(s)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", strings.Join(from, ", "), t.Verb, t.Guard.Text, t.To, t.Does, t.Why)
	}
	b.WriteString(`
What an abort takes back is written on the node (` + "`undo`" + `) in the commit that gives the plan up, and done by a plan of its own (use ` + "`undo`" + `) that
begins by itself: identify the BMC, wires, power off, override, medium. It is tried again after a growing pause, up to half an hour, and MC-FAULT-UNDO says meanwhile
why it does not come through. A hold stops it, protection keeps the machine on, and any plan that is asked for takes precedence: a release does the same things, an inspection
or a retry boots anew. After a failed inspection, cleaning or burn-in the machine stays on for 15 minutes while its agent answers, so that ` + "`metalctl node retry`" + ` goes on at the
first step that had not finished; a retry after that, and every retry of a deployment, begins anew. After a failed rebuild the tenant's machine is left as
it is, on or off, with its agent where one runs, until a retry or the release. A failed release stays where it is, and a failed resume goes back to releasing, which isolates and
switches off.

What a node takes from people in each state. Allocating, deploying and resuming are done by leases; adopt, burn, rescue, unrescue and service are
rows of the table that no plan is composed for, so they are not offered:

| state | a plan runs | verbs |
| --- | --- | --- |
`)
	for _, s := range States() {
		running := ""
		if s.Working() {
			running = "yes"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", s, running, joinVerbs(Takes(s)))
	}
	b.WriteString(`
A test walks every combination of state, dirt and isolation that these rows allow and holds them to this:

- I1: every state is reachable from enrolled.
- I2: only retired is an end, and from everywhere else a way leads to available or retired.
- I3: no path from dirty under one lease to active or allocated under another, nor to burning or available, avoids ` + "`cleaning done`" + `; a node with data
  on it is retired only with a record of destroyed media.
- I4: isolated is never true while a tenant is on the wires, and nothing leaves releasing unless the wires were read back or the site waives it.
- I5: every state in which a plan runs has done and another way out.
- I6: two rows with the same from and verb never hold both.

## Leases

| from | verb | to | why |
| --- | --- | --- | --- |
`)
	for _, t := range LeaseLifecycle {
		from := make([]string, len(t.From))
		for i, s := range t.From {
			from[i] = string(s)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.Join(from, ", "), t.Verb, t.To, t.Why)
	}
	b.WriteString("\nRelease of a lease that is releasing, released or failed is answered with its present state.\n")
	return b.String()
}
