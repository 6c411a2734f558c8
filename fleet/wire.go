package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// VLAN is an 802.1Q tag, 2 to 4094: 1 is what switches fall back to, so nothing of ours is ever on it. 0 is none.
type VLAN uint16

// Valid reports whether v can be a network's tag.
func (v VLAN) Valid() bool { return v >= 2 && v <= 4094 }

// Carries is all that a wire carries: a full set, never a difference. The zero value of an Ethernet port carries nothing.
type Carries struct {
	// Down is an Ethernet port that is switched off.
	Down bool `json:"down,omitempty"`
	// Untagged is the network of frames without a tag, 0 for none; Tagged are those with one, in order.
	Untagged VLAN   `json:"untagged,omitempty"`
	Tagged   []VLAN `json:"tagged,omitempty"`
	// Protected ports of one switch exchange nothing with each other, only with those that are not.
	Protected bool `json:"protected,omitempty"`
	// Partitions are an InfiniBand port's memberships, in order of their keys, each key once.
	Partitions []Membership `json:"partitions,omitempty"`
	// Index0 is the key at the first place of its table; 0 where that does not matter.
	Index0 PKey `json:"index0,omitempty"`
}

// InPartitions is what an InfiniBand port carries that is a member of those partitions, and of the default one as every node is. With none it is in
// quarantine: it reaches the subnet manager, and no other node.
func InPartitions(m ...Membership) Carries {
	all := append(slices.Clone(m), Membership{PKey: DefaultPKey})
	slices.SortFunc(all, func(a, b Membership) int { return int(a.PKey) - int(b.PKey) })
	return Carries{Partitions: all}
}

// Equal reports whether a port that shows c is as want says. An index that want leaves open may be any.
func (c Carries) Equal(want Carries) bool {
	return c.Down == want.Down && c.Untagged == want.Untagged && c.Protected == want.Protected && slices.Equal(c.Tagged, want.Tagged) && slices.Equal(c.Partitions, want.Partitions) &&
		(want.Index0 == 0 || want.Index0 == c.Index0)
}

func (c Carries) String() string {
	var s []string
	if c.Down {
		s = append(s, "down")
	}
	if c.Untagged != 0 {
		s = append(s, fmt.Sprintf("untagged %d", c.Untagged))
	}
	if len(c.Tagged) > 0 {
		s = append(s, fmt.Sprintf("tagged %v", c.Tagged))
	}
	if c.Protected {
		s = append(s, "protected")
	}
	for _, m := range c.Partitions {
		s = append(s, m.String())
	}
	if len(s) == 0 {
		return "nothing"
	}
	return strings.Join(s, " ")
}

// Validate lists all that is wrong with c as a wish; each field begins with at.
func (c Carries) Validate(at string) []FieldError {
	var f faults
	f.check(c.Untagged == 0 || c.Untagged.Valid(), at+".untagged", "is not between 2 and 4094")
	for i, v := range c.Tagged {
		f.check(v.Valid(), fmt.Sprintf("%s.tagged[%d]", at, i), "is not between 2 and 4094")
		f.check(v != c.Untagged, fmt.Sprintf("%s.tagged[%d]", at, i), "is the untagged network, too")
		f.check(i == 0 || c.Tagged[i-1] < v, fmt.Sprintf("%s.tagged[%d]", at, i), "is not in order, or there twice")
	}
	index := c.Index0 == 0
	for i, m := range c.Partitions {
		f.check(m.PKey.Valid() || m.PKey == DefaultPKey, fmt.Sprintf("%s.partitions[%d]", at, i), "is no partition key: 0x0001 to 0x7fff")
		f.check(i == 0 || c.Partitions[i-1].PKey < m.PKey, fmt.Sprintf("%s.partitions[%d]", at, i), "is not in order, or there twice")
		index = index || m.PKey == c.Index0
	}
	f.check(index, at+".index0", c.Index0.String()+" is none of the partitions")
	f.check(len(c.Partitions) == 0 || c.Untagged == 0 && len(c.Tagged) == 0 && !c.Down && !c.Protected, at, "is of Ethernet and of InfiniBand")
	return f
}

// PortView is one port as it was read from its device.
type PortView struct {
	// Port is what the device calls it: a switch's port, or a GUID.
	Port    string  `json:"port"`
	Carries Carries `json:"carries"`
	// Peer is where its cable ends, "" where the device cannot tell. For a GUID it is the leaf switch's GUID and port.
	Peer string `json:"peer,omitempty"`
	// Doubt says why it could not be read, or cannot be believed; such a port is never called isolated.
	Doubt string `json:"doubt,omitempty"`
	// Absent: the whole device was read, and the port is not there, as its machine or its link is down. What it will carry when it comes is decided by the
	// device's configuration, which the port is given before it speaks.
	Absent bool `json:"absent,omitempty"`
}

// WireFinding is something about a device that a person should know.
type WireFinding struct {
	// Code has a page in Codes.
	Code string `json:"code"`
	Text string `json:"text"`
	// Stops is set where nothing may be handed out while it stands: what was read cannot be trusted to last.
	Stops bool `json:"stops,omitempty"`
}

// WireView is what was read of one switch or fabric.
type WireView struct {
	Device string    `json:"device"`
	At     time.Time `json:"at"`
	// Mark stands for the device's configuration as it was; a plan made from the view is refused where it has become another.
	Mark string `json:"mark"`
	// Ports are in order of their names.
	Ports    []PortView    `json:"ports"`
	Findings []WireFinding `json:"findings,omitempty"`
}

// Port returns the view's port of that name, or nil.
func (v WireView) Port(name string) *PortView {
	i, ok := slices.BinarySearchFunc(v.Ports, name, func(p PortView, n string) int { return strings.Compare(p.Port, n) })
	if !ok {
		return nil
	}
	return &v.Ports[i]
}

// Stops returns the first finding that stops hand-overs, or nil.
func (v WireView) Stops() *WireFinding {
	i := slices.IndexFunc(v.Findings, func(f WireFinding) bool { return f.Stops })
	if i < 0 {
		return nil
	}
	return &v.Findings[i]
}

// Stopped is a Conflict: nothing is changed while the finding stands.
func (f WireFinding) Stopped() *Error {
	return Errorf(Conflict, f.Code, "nothing is changed while this stands: %s", f.Text).WithHint("metalctl help %s", f.Code)
}

// WireConflict is a change that is not made, as the device is not as it was when that was planned.
func WireConflict(format string, args ...any) *Error {
	return Errorf(Conflict, "MC-NET-CONFLICT", format, args...).WithHint("make a new plan: metalctl network plan")
}

// WireUnproven is a change that a device did not show in time.
func WireUnproven(device, why string) *Error {
	return Errorf(Timeout, "MC-NET-UNPROVEN", "%s does not show what was written: %s", device, why).WithHint("metalctl network plan shows what differs")
}

// Within reports whether c carries nothing that more does not.
func (c Carries) Within(more Carries) bool {
	has := func(m Membership) bool {
		return slices.ContainsFunc(more.Partitions, func(x Membership) bool { return x.PKey == m.PKey && (x.Full || !m.Full) })
	}
	return (c.Untagged == 0 || c.Untagged == more.Untagged) && (c.Down || !more.Down) && (c.Protected || !more.Protected) &&
		!slices.ContainsFunc(c.Tagged, func(v VLAN) bool { return !slices.Contains(more.Tagged, v) }) &&
		!slices.ContainsFunc(c.Partitions, func(m Membership) bool { return !has(m) })
}

// WireChange is one port of a plan, before and after.
type WireChange struct {
	Port string  `json:"port"`
	From Carries `json:"from"`
	To   Carries `json:"to"`
}

// WirePlan is what would be done to one device, and nothing else: it says which state it replaces, and holds no port that stays as it is.
type WirePlan struct {
	Device string `json:"device"`
	// Expect is the mark of the view that the plan was made from.
	Expect  string       `json:"expect"`
	Changes []WireChange `json:"changes"`
	// Takes: it only takes away what ports carry. It is done and proven whatever is wrong with other ports.
	Takes bool `json:"takes,omitempty"`
	// Write is what the driver gives the device, Replaces what it had before: a file, a list of commands, a transaction.
	Write    string `json:"write"`
	Replaces string `json:"replaces"`
}

// Digest names exactly this plan.
func (p WirePlan) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		return "" // strings and numbers always encode
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
