// Package probe sends and hears signed Ethernet frames, which show what a switch passes on and what it does not.
package probe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/metalctl/metalctl/fleet"
)

const (
	// etherType is IEEE 802's first local experimental one.
	etherType = 0x88b5
	// dot1Q and dot1ad are the types of tags.
	dot1Q  = 0x8100
	dot1ad = 0x88a8

	headerBytes = 14
	tagBytes    = 4
)

// A frame's payload: magic, version, round, sender, tag that it was sent with, burst, acknowledged ports, and the first 16 bytes of HMAC-SHA256 over all before.
const (
	magic        = "MCPR"
	version      = 1
	roundBytes   = 16
	signedBytes  = len(magic) + 1 + roundBytes + 2 + 2 + 4 + 8
	macBytes     = 16
	payloadBytes = signedBytes + macBytes
	// untaggedWire stands for a frame without a tag; no tag has such a number.
	untaggedWire = 0xffff
)

// roundID names a round on the wire.
type roundID [roundBytes]byte

func parseRound(text string) (id roundID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != roundBytes {
		return id, errors.New("a round's name is 32 hexadecimal digits")
	}
	return roundID(b), nil
}

// frame is what one says.
type frame struct {
	round roundID
	from  uint16
	// sent is the tag that it was sent with.
	sent  fleet.FrameTag
	burst uint32
	// acks has a bit for each port of the node that the canary has heard enough of, by itself and of everything else.
	acks uint64
}

// encode is the frame with its Ethernet header and tag, to everybody.
func (f frame) encode(key []byte, source [6]byte) []byte {
	b := make([]byte, 0, headerBytes+tagBytes+payloadBytes)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = append(b, source[:]...)
	sent := uint16(untaggedWire)
	if f.sent != fleet.Untagged {
		sent = uint16(f.sent)
		b = binary.BigEndian.AppendUint16(b, dot1Q)
		b = binary.BigEndian.AppendUint16(b, sent)
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	at := len(b)
	b = append(b, magic...)
	b = append(b, version)
	b = append(b, f.round[:]...)
	b = binary.BigEndian.AppendUint16(b, f.from)
	b = binary.BigEndian.AppendUint16(b, sent)
	b = binary.BigEndian.AppendUint32(b, f.burst)
	b = binary.BigEndian.AppendUint64(b, f.acks)
	return append(b, sign(key, b[at:])...)
}

func sign(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)[:macBytes]
}

// untag takes the tags off a frame that begin with its type, and returns the outer one and the rest: what is said, where it is one of ours.
func untag(b []byte) (tag fleet.FrameTag, payload []byte, ours bool) {
	tag = fleet.Untagged
	if len(b) < headerBytes {
		return tag, nil, false
	}
	b = b[headerBytes-2:]
	for {
		if len(b) < 2 {
			return tag, nil, false
		}
		kind := binary.BigEndian.Uint16(b)
		if kind != dot1Q && kind != dot1ad {
			return tag, b[2:], kind == etherType
		}
		if len(b) < 2+tagBytes {
			return tag, nil, false
		}
		if tag == fleet.Untagged {
			tag = fleet.FrameTag(binary.BigEndian.Uint16(b[2:]) & 0xfff)
		}
		b = b[tagBytes:]
	}
}

// parse reads what a frame of ours says, unless it is cut off. Nothing of it is to be believed before it is verified with the key of its round.
func parse(payload []byte) (frame, bool) {
	if len(payload) < payloadBytes || string(payload[:len(magic)]) != magic || payload[len(magic)] != version {
		return frame{}, false
	}
	b := payload[len(magic)+1:]
	f := frame{round: roundID(b[:roundBytes])}
	b = b[roundBytes:]
	f.from = binary.BigEndian.Uint16(b)
	switch sent := binary.BigEndian.Uint16(b[2:]); {
	case sent == untaggedWire:
		f.sent = fleet.Untagged
	case sent > 4095:
		return frame{}, false
	default:
		f.sent = fleet.FrameTag(sent)
	}
	f.burst, f.acks = binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:])
	return f, true
}

// verified reports whether who made the payload has the key.
func verified(key, payload []byte) bool {
	return hmac.Equal(sign(key, payload[:signedBytes]), payload[signedBytes:payloadBytes])
}
