// Package fabric asks the devices of an InfiniBand fabric what they are, how they are cabled and which partition keys they hold.
package fabric

import (
	"encoding/binary"
	"fmt"
)

// Size is that of every management datagram (InfiniBand Architecture 1.4, section 13.4.2).
const Size = 256

// MaxHops is the longest directed route.
const MaxHops = 63

// Attributes of subnet management (section 14.2.5).
const (
	attrNodeInfo   = 0x0011
	attrSwitchInfo = 0x0012
	attrPortInfo   = 0x0015
	attrPKeyTable  = 0x0016
	attrSMInfo     = 0x0020
)

const (
	classDirected = 0x81
	methodGet     = 0x01
	methodSet     = 0x02
	methodGetResp = 0x81
	permissiveLID = 0xffff
	dataAt        = 64
	pathAt        = 128
	// blockKeys is how many partition keys are in one block of a table.
	blockKeys = 32
)

// Route is the ports to leave by, from the port where we are to the device; the empty route is the device itself.
type Route []byte

func (r Route) String() string {
	s := "0"
	for _, p := range r {
		s += fmt.Sprintf(",%d", p)
	}
	return s
}

// to returns the route that goes on by port.
func (r Route) to(port byte) Route { return append(append(make(Route, 0, len(r)+1), r...), port) }

// question asks one attribute of the device at the end of a route, or sets it.
type question struct {
	route Route
	attr  uint16
	mod   uint32
	// set is what the attribute shall be; nil only asks.
	set *[64]byte
}

func (q question) String() string {
	return fmt.Sprintf("attribute 0x%02x (0x%x) of the device at %s", q.attr, q.mod, q.route)
}

// encode writes q as a directed route datagram (section 14.2.1.2).
func (q question) encode(tid, mkey uint64) (d [Size]byte) {
	d[0], d[1], d[2], d[3] = 1, classDirected, 1, methodGet
	d[7] = byte(len(q.route)) // hop pointer 0: the port's driver counts
	binary.BigEndian.PutUint64(d[8:], tid)
	binary.BigEndian.PutUint16(d[16:], q.attr)
	binary.BigEndian.PutUint32(d[20:], q.mod)
	binary.BigEndian.PutUint64(d[24:], mkey)
	binary.BigEndian.PutUint16(d[32:], permissiveLID)
	binary.BigEndian.PutUint16(d[34:], permissiveLID)
	copy(d[pathAt+1:pathAt+64], q.route)
	if q.set != nil {
		d[3] = methodSet
		copy(d[dataAt:], q.set[:])
	}
	return d
}

// answer is the attribute that came back.
type answer struct {
	data [64]byte
	err  error
}

// decode reads an answer to q. ok is false where d is none: another question's, or no answer at all.
func (q question) decode(d []byte) (a answer, ok bool) {
	if len(d) != Size || d[1] != classDirected || d[3] != methodGetResp || binary.BigEndian.Uint16(d[16:]) != q.attr || binary.BigEndian.Uint32(d[20:]) != q.mod {
		return a, false
	}
	if status := binary.BigEndian.Uint16(d[4:]) &^ 0x8000; status != 0 {
		a.err = fmt.Errorf("%s: status 0x%04x", q, status)
	}
	copy(a.data[:], d[dataAt:])
	return a, true
}

// NodeType is what a device is.
type NodeType byte

const (
	CA     NodeType = 1
	Switch NodeType = 2
	Router NodeType = 3
)

type nodeInfo struct {
	kind               NodeType
	ports              byte
	nodeGUID, portGUID uint64
	partitionCap       uint16
	localPort          byte
}

func decodeNodeInfo(b [64]byte) nodeInfo {
	return nodeInfo{kind: NodeType(b[2]), ports: b[3], nodeGUID: binary.BigEndian.Uint64(b[12:]),
		portGUID: binary.BigEndian.Uint64(b[20:]), partitionCap: binary.BigEndian.Uint16(b[28:]), localPort: b[36]}
}

type portInfo struct {
	lid          uint16
	isSM, linkUp bool
}

const (
	capIsSM    = 1 << 1
	physicalUp = 5
)

func decodePortInfo(b [64]byte) portInfo {
	return portInfo{lid: binary.BigEndian.Uint16(b[16:]), isSM: binary.BigEndian.Uint32(b[20:])&capIsSM != 0,
		linkUp: b[33]>>4 == physicalUp}
}

// SMState is what a subnet manager says of itself (section 14.4.1).
type SMState byte

const (
	SMNotActive SMState = iota
	SMDiscovering
	SMStandby
	SMMaster
)

func (s SMState) String() string {
	names := []string{"not active", "discovering", "standby", "master"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state %d", byte(s))
}

type smInfo struct {
	priority byte
	state    SMState
}

func decodeSMInfo(b [64]byte) smInfo {
	return smInfo{priority: b[20] >> 4, state: SMState(b[20] & 0xf)}
}

// decodeKeys reads one block of a table, at most left entries of it.
func decodeKeys(b [64]byte, left int) []uint16 {
	keys := make([]uint16, min(left, blockKeys))
	for i := range keys {
		keys[i] = binary.BigEndian.Uint16(b[2*i:])
	}
	return keys
}
