package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PKey is an InfiniBand partition key without its top bit, which says full or limited and is a Membership's.
type PKey uint16

// DefaultPKey is the partition that the subnet manager itself is reached in. Nodes are limited members, so that they cannot speak to each other in it.
const DefaultPKey PKey = 0x7fff

// fullBit is the top bit of a partition key in a device's table (InfiniBand Architecture 1.4, section 10.9.1.1).
const fullBit = 0x8000

// Valid reports whether a partition of ours can have the key: 0x0001 to 0x7ffe.
func (k PKey) Valid() bool { return k > 0 && k < DefaultPKey }

func (k PKey) String() string { return fmt.Sprintf("0x%04x", uint16(k)) }

// MarshalText gives "0x" and four hex digits.
func (k PKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes 0x1 to 0x7fff in hex; a key with the top bit set is refused, as it names a membership and not a partition.
func (k *PKey) UnmarshalText(b []byte) error {
	hex, ok := strings.CutPrefix(string(b), "0x")
	n, err := strconv.ParseUint(hex, 16, 16)
	switch {
	case !ok || err != nil || n == 0:
		return fmt.Errorf("%q is no partition key such as 0x0101", b)
	case n&fullBit != 0:
		return fmt.Errorf("%s has the top bit, which says full member and is not part of the key; 0x%04x is meant", b, n&^fullBit)
	}
	*k = PKey(n)
	return nil
}

// ParseGUID takes "0x" and up to 16 hex digits and gives the GUID in its one form. Zero is none.
func ParseGUID(s string) (GUID, error) {
	hex, ok := strings.CutPrefix(s, "0x")
	n, err := strconv.ParseUint(hex, 16, 64)
	if !ok || err != nil || n == 0 {
		return "", fmt.Errorf("%q is no port GUID such as 0x5000000000000101", s)
	}
	return GUIDOf(n), nil
}

// GUIDOf writes a GUID in its one form.
func GUIDOf(n uint64) GUID { return GUID(fmt.Sprintf("0x%016x", n)) }

// Valid reports whether g is in its one form: 0x and 16 lower-case hex digits, not all zero.
func (g GUID) Valid() bool {
	same, err := ParseGUID(string(g))
	return err == nil && same == g
}

// Membership is one entry of a port's table of partition keys.
type Membership struct {
	PKey PKey `json:"pkey"`
	// Full members speak to all of the partition, limited ones to full ones only.
	Full bool `json:"full,omitempty"`
}

// MembershipOf reads an entry of a device's table.
func MembershipOf(raw uint16) Membership {
	return Membership{PKey: PKey(raw &^ fullBit), Full: raw&fullBit != 0}
}

// Raw is the entry as a device's table has it.
func (m Membership) Raw() uint16 {
	if m.Full {
		return uint16(m.PKey) | fullBit
	}
	return uint16(m.PKey)
}

func (m Membership) String() string {
	if m.Full {
		return m.PKey.String() + "=full"
	}
	return m.PKey.String() + "=limited"
}

// PartitionMember is one port of a partition.
type PartitionMember struct {
	GUID GUID `json:"guid"`
	Full bool `json:"full,omitempty"`
	// Index0 puts the partition's key first in the port's table, where programs that know of no partitions look.
	Index0 bool `json:"index0,omitempty"`
}

// Partition is an InfiniBand partition with its members.
type Partition struct {
	Name    string            `json:"name"`
	PKey    PKey              `json:"pkey"`
	Members []PartitionMember `json:"members,omitempty"`
	// IPoIB gives it a broadcast group for IP, with packets of up to MTU bytes: 256, 512, 1024, 2048 or 4096; 0 is 2048.
	IPoIB bool `json:"ipoib,omitempty"`
	MTU   int  `json:"mtu,omitempty"`
}

// MTUs are the sizes that InfiniBand has; a size's code in datagrams is its place here plus one.
var MTUs = []int{256, 512, 1024, 2048, 4096}

// Validate lists all that is wrong with the partition by itself.
func (p Partition) Validate() []FieldError {
	var f faults
	f.check(ValidName(p.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	f.check(p.PKey.Valid(), "pkey", "is not between 0x0001 and 0x7ffe; 0x7fff is the fabric's own, and the top bit is a membership's")
	f.check(p.MTU == 0 || slices.Contains(MTUs, p.MTU), "mtu", "is none of 256, 512, 1024, 2048, 4096")
	f.check(p.MTU == 0 || p.IPoIB, "mtu", "is that of the group for IP, and ipoib is not set")
	seen := map[GUID]bool{}
	for i, m := range p.Members {
		at := "members[" + strconv.Itoa(i) + "].guid"
		f.check(m.GUID.Valid(), at, "is no port GUID such as 0x5000000000000101")
		f.check(!seen[m.GUID], at, string(m.GUID)+" is a member twice")
		seen[m.GUID] = true
	}
	return f
}

// Fabric is an InfiniBand fabric with what metalctl may write in it. Every port and key that it does not name is read only.
type Fabric struct {
	Name string `json:"name"`
	// SMs are the ports where a subnet manager may run. They are full members of the default partition, and no tenant's.
	SMs []GUID `json:"sms"`
	// First and Last bound the keys that tenants' partitions get.
	First PKey `json:"first"`
	Last  PKey `json:"last"`
	// Managed are the ports that are moved between partitions.
	Managed []GUID `json:"managed"`
	// Fixed are partitions of other owners, for storage and gateways: they are kept as they stand here.
	Fixed []Partition `json:"fixed,omitempty"`
	// IPoIB and MTU are those of every tenant's partition.
	IPoIB bool `json:"ipoib,omitempty"`
	MTU   int  `json:"mtu,omitempty"`
}

// Owns reports whether k is a key that tenants' partitions get.
func (f Fabric) Owns(k PKey) bool { return k >= f.First && k <= f.Last }

// May lists what is wrong with c as a wish for a managed port: a limited member of the default partition, beside that only keys that tenants get.
func (f Fabric) May(c Carries, at string) []FieldError {
	e := faults(c.Validate(at))
	limited := false
	for _, m := range c.Partitions {
		limited = limited || m.PKey == DefaultPKey && !m.Full
		e.check(m.PKey != DefaultPKey || !m.Full, at, "would be a full member of the default partition, which reaches every node")
		e.check(m.PKey == DefaultPKey || f.Owns(m.PKey), at, fmt.Sprintf("%s is none of the keys %s to %s", m.PKey, f.First, f.Last))
	}
	e.check(limited, at, "leaves out the default partition, which the subnet manager gives every port")
	return e
}

// Validate lists all that is wrong with the fabric.
func (f Fabric) Validate() []FieldError {
	var e faults
	e.check(ValidName(f.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -")
	e.check(f.First.Valid() && f.Last.Valid() && f.First <= f.Last, "first", "to last is no range within 0x0001 and 0x7ffe")
	e.check(len(f.SMs) > 0, "sms", "names no port for the subnet manager")
	e.check(f.MTU == 0 || f.IPoIB && slices.Contains(MTUs, f.MTU), "mtu", "goes with ipoib, and is one of 256, 512, 1024, 2048, 4096")
	seen := map[GUID]string{}
	list := func(field string, guids []GUID) {
		for i, g := range guids {
			at := field + "[" + strconv.Itoa(i) + "]"
			e.check(g.Valid(), at, "is no port GUID such as 0x5000000000000101")
			e.check(seen[g] == "", at, string(g)+" stands in "+seen[g]+", too")
			seen[g] = field
		}
	}
	list("sms", f.SMs)
	list("managed", f.Managed)
	keys, names := map[PKey]bool{}, map[string]bool{}
	for i, p := range f.Fixed {
		at := "fixed[" + strconv.Itoa(i) + "]"
		for _, x := range p.Validate() {
			e = append(e, FieldError{Field: at + "." + x.Field, Message: x.Message})
		}
		e.check(!f.Owns(p.PKey), at+".pkey", p.PKey.String()+" is one of the keys that tenants get")
		e.check(!keys[p.PKey], at+".pkey", p.PKey.String()+" is that of another fixed partition, too")
		e.check(!names[p.Name], at+".name", strconv.Quote(p.Name)+" is the name of two")
		keys[p.PKey], names[p.Name] = true, true
		for j, m := range p.Members {
			e.check(seen[m.GUID] != "managed", fmt.Sprintf("%s.members[%d].guid", at, j), string(m.GUID)+" is managed; what it is a member of is decided by leases")
		}
	}
	return e
}
