package ovs

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// What is spoken of OpenFlow 1.3.5: reading ports and flows, and switching ports off and on. An OVSDB server cannot do that.
const (
	ofVersion = 4

	ofHello, ofError, ofEcho, ofEchoed           = 0, 1, 2, 3
	ofPortMod, ofMultipart, ofParts              = 16, 18, 19
	ofBarrier, ofPassed                          = 20, 21
	ofFlows, ofAggregate, ofPortDescribed        = 1, 2, 13
	ofAnyPort, ofNormal                   uint32 = 0xffffffff, 0xfffffffa

	ofPortDown   uint32 = 1 << 0
	ofNoReceive  uint32 = 1 << 2
	ofNoForward  uint32 = 1 << 5
	maxParts            = 1024
	ofHeaderSize        = 8
	ofPortSize          = 64
)

// openflow is a connection to a bridge, for one question at a time.
type openflow struct {
	conn     net.Conn
	last     uint32
	patience time.Duration
}

// newOpenflow greets the bridge.
func newOpenflow(ctx context.Context, conn net.Conn, patience time.Duration) (*openflow, error) {
	o := &openflow{conn: conn, patience: patience}
	if err := o.send(ctx, ofHello, nil); err != nil {
		return nil, err
	}
	kind, _, body, err := o.receive()
	switch {
	case err != nil:
		return nil, err
	case kind == ofError:
		return nil, refusal(body)
	case kind != ofHello:
		return nil, garbled("OpenFlow begins with message %d", kind)
	}
	return o, nil
}

// send asks something; the answer bears o.last.
func (o *openflow) send(ctx context.Context, kind byte, body []byte) error {
	if err := o.conn.SetDeadline(deadline(ctx, o.patience)); err != nil {
		return lost(err)
	}
	o.last++
	return o.write(kind, o.last, body)
}

func (o *openflow) write(kind byte, id uint32, body []byte) error {
	b := make([]byte, ofHeaderSize, ofHeaderSize+len(body))
	b[0], b[1] = ofVersion, kind
	binary.BigEndian.PutUint16(b[2:], uint16(ofHeaderSize+len(body)))
	binary.BigEndian.PutUint32(b[4:], id)
	if _, err := o.conn.Write(append(b, body...)); err != nil {
		return lost(err)
	}
	return nil
}

func (o *openflow) receive() (kind byte, id uint32, body []byte, err error) {
	head := make([]byte, ofHeaderSize)
	if _, err := io.ReadFull(o.conn, head); err != nil {
		return 0, 0, nil, lost(err)
	}
	size := int(binary.BigEndian.Uint16(head[2:]))
	if size < ofHeaderSize || head[0] < 1 || head[0] > 6 {
		return 0, 0, nil, garbled("%x does not begin a message of OpenFlow", head)
	}
	body = make([]byte, size-ofHeaderSize)
	if _, err := io.ReadFull(o.conn, body); err != nil {
		return 0, 0, nil, lost(err)
	}
	if head[0] != ofVersion && head[1] != ofHello && head[1] != ofError {
		return 0, 0, nil, garbled("the bridge answers in version %d of OpenFlow", head[0])
	}
	return head[1], binary.BigEndian.Uint32(head[4:]), body, nil
}

// answer waits for the answer of that kind to the last question.
func (o *openflow) answer(want byte) ([]byte, error) {
	for {
		kind, id, body, err := o.receive()
		switch {
		case err != nil:
			return nil, err
		case kind == ofEcho:
			if err := o.write(ofEchoed, id, body); err != nil {
				return nil, err
			}
		case id == o.last && kind == want:
			return body, nil
		case kind == ofError && id != 0 && id <= o.last:
			return nil, refusal(body)
		}
	}
}

func refusal(body []byte) error {
	if len(body) < 4 {
		return garbled("an error of %d bytes", len(body))
	}
	return fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the bridge refused: error %d, %d of OpenFlow 1.3", binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])).
		WithHint("the bridge must allow OpenFlow13 among its protocols")
}

// parts asks for statistics and gives each part of the answer to take.
func (o *openflow) parts(ctx context.Context, what uint16, body []byte, take func([]byte) error) error {
	q := make([]byte, 8, 8+len(body))
	binary.BigEndian.PutUint16(q, what)
	if err := o.send(ctx, ofMultipart, append(q, body...)); err != nil {
		return err
	}
	for range maxParts {
		b, err := o.answer(ofParts)
		if err != nil {
			return err
		}
		if len(b) < 8 || binary.BigEndian.Uint16(b) != what {
			return garbled("statistics of another kind than %d", what)
		}
		if err := take(b[8:]); err != nil {
			return err
		}
		if b[3]&1 == 0 {
			return nil
		}
	}
	return garbled("statistics in more than %d parts", maxParts)
}

// ofPort is a port as the bridge has it now.
type ofPort struct {
	number uint32
	mac    [6]byte
	name   string // its first 15 bytes
	config uint32
}

// ports reads all ports by their numbers.
func (o *openflow) ports(ctx context.Context) (map[uint32]ofPort, error) {
	out := map[uint32]ofPort{}
	err := o.parts(ctx, ofPortDescribed, nil, func(b []byte) error { return parsePorts(b, out) })
	return out, err
}

func parsePorts(b []byte, into map[uint32]ofPort) error {
	if len(b)%ofPortSize != 0 {
		return garbled("descriptions of ports of %d bytes", len(b))
	}
	for ; len(b) > 0; b = b[ofPortSize:] {
		p := ofPort{number: binary.BigEndian.Uint32(b), mac: [6]byte(b[8:14]), config: binary.BigEndian.Uint32(b[32:])}
		p.name, _, _ = strings.Cut(string(b[16:32]), "\x00")
		into[p.number] = p
	}
	return nil
}

// allFlows matches every flow of every table.
func allFlows() []byte {
	b := make([]byte, 40)
	b[0] = 0xff
	binary.BigEndian.PutUint32(b[4:], ofAnyPort)
	binary.BigEndian.PutUint32(b[8:], ofAnyPort)
	b[33], b[35] = 1, 4 // OXM, nothing in it
	return b
}

// normal says what keeps the bridge from forwarding by its ports' VLANs: flows other than the one that a bridge without a controller has. "" where nothing does.
func (o *openflow) normal(ctx context.Context) (string, error) {
	var count uint32
	err := o.parts(ctx, ofAggregate, allFlows(), func(b []byte) error {
		if len(b) != 24 {
			return garbled("a sum of flows of %d bytes", len(b))
		}
		count = binary.BigEndian.Uint32(b[16:])
		return nil
	})
	if err != nil || count != 1 {
		return fmt.Sprintf("it has %d flows", count), err
	}
	only := false
	err = o.parts(ctx, ofFlows, allFlows(), func(b []byte) error {
		only = only || isNormal(b)
		return nil
	})
	if err != nil || only {
		return "", err
	}
	return "its one flow is not the normal one", nil
}

// isNormal reports whether b is exactly the flow "priority=0 actions=NORMAL" of table 0.
func isNormal(b []byte) bool {
	const fixed, match, instruction, action = 48, 8, 8, 16
	if len(b) != fixed+match+instruction+action || int(binary.BigEndian.Uint16(b)) != len(b) || b[2] != 0 || binary.BigEndian.Uint16(b[12:]) != 0 {
		return false
	}
	m, i, a := b[fixed:], b[fixed+match:], b[fixed+match+instruction:]
	return binary.BigEndian.Uint16(m) == 1 && binary.BigEndian.Uint16(m[2:]) == 4 &&
		binary.BigEndian.Uint16(i) == 4 && binary.BigEndian.Uint16(i[2:]) == instruction+action &&
		binary.BigEndian.Uint16(a) == 0 && binary.BigEndian.Uint32(a[4:]) == ofNormal
}

// power switches ports off or on, and waits until the bridge has done so.
func (o *openflow) power(ctx context.Context, ports []ofPort, down bool) error {
	for _, p := range ports {
		b := make([]byte, 32)
		binary.BigEndian.PutUint32(b, p.number)
		copy(b[8:], p.mac[:])
		if down {
			binary.BigEndian.PutUint32(b[16:], ofPortDown)
		}
		binary.BigEndian.PutUint32(b[20:], ofPortDown)
		if err := o.send(ctx, ofPortMod, b); err != nil {
			return err
		}
	}
	if err := o.send(ctx, ofBarrier, nil); err != nil {
		return err
	}
	_, err := o.answer(ofPassed)
	return err
}
