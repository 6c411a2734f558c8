package opensm

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/metalctl/metalctl/provision/fabric"
)

// The model follows osm_prtn_config.c and osm_prtn.c of OpenSM 3.3.23, function by function, with what they accept by mistake: a word that is a prefix of a
// keyword is that keyword, so that a port called A is every port; keys are cut to 15 bits; and an empty file is a bad one. On a bad file the daemon
// forgets all partitions and makes every port a full member of the default one.

// membership is that of a port, as a line asks for it. "both" counts as full, as long as allow_both_pkeys is off.
type membership int

const (
	limited membership = iota
	full
	both
)

// entry is one port, or all of a kind, that a line puts into a partition.
type entry struct {
	part *partition
	// guid is the port's, 0 for all of kind, which is 0 for all of any kind; self is the port of the subnet manager that reads the file.
	guid   uint64
	kind   fabric.NodeType
	self   bool
	member membership
	index0 bool
}

type partition struct {
	key  uint16
	name string
}

// File is a partition file as OpenSM understands it.
type File struct {
	entries []entry
	parts   map[uint16]*partition
	// counter is the last key that was given to a partition without one.
	counter uint16
}

// conf is what one definition has said so far.
type conf struct {
	part   *partition
	member membership
	index0 bool
}

type parser struct {
	buf  line
	file *File
	conf *conf
}

// Parse reads a partition file as OpenSM does. The error says what OpenSM stumbles over, and that is where it fails open.
func Parse(text string) (f *File, err error) {
	defer func() {
		if r := recover(); r != nil {
			if r != errOutside {
				panic(r)
			}
			f, err = nil, errOutside
		}
	}()
	p := &parser{file: &File{parts: map[uint16]*partition{0x7fff: {key: 0x7fff, name: "Default"}}}}
	said := false
	for n := 1; text != ""; n++ {
		// fgets reads a line up to its end, or as much as goes into the buffer.
		chunk := text[:min(len(text), len(p.buf)-2)]
		if i := strings.IndexByte(chunk, '\n'); i >= 0 {
			chunk = chunk[:i+1]
		}
		text = text[len(chunk):]
		copy(p.buf[:], chunk)
		p.buf[len(chunk)] = 0
		some, err := p.line()
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		said = said || some
	}
	if !said {
		return nil, fmt.Errorf("it says nothing")
	}
	return p.file, nil
}

// line reads the definitions of the line in the buffer and reports whether there were any.
func (p *parser) line() (some bool, err error) {
	l := &p.buf
	if q := l.find(0, '#'); q != none {
		l.put(q, 0)
	}
	at := 0
	for {
		at = l.skipBlank(at)
		if l.at(at) == 0 {
			return some, nil
		}
		if p.conf == nil {
			p.conf = &conf{}
		}
		q := l.find(at, ';')
		if q != none {
			l.put(q, 0)
		}
		n, err := p.definition(at)
		if err != nil {
			return some, err
		}
		some = true
		at += n
		if q == none {
			return some, nil
		}
		p.conf = nil
	}
}

// definition is parse_part_conf: a partition's head up to the colon, unless a line before has had it, and then its ports.
func (p *parser) definition(str int) (length int, err error) {
	l := &p.buf
	at := str
	if c := l.at(at); c == '\t' || c == 0 || c == '\n' {
		at++
	}
	length += at - str
	if p.conf.part == nil {
		n, err := p.head(at)
		if err != nil {
			return 0, err
		}
		at += n
		length += n
	}
	for {
		q := l.find(at, ',')
		if q != none {
			l.put(q, 0)
		}
		n, name, val := p.token(at)
		length += n
		if l.text(name) == "mgid" {
			n, err := p.group(at+n, val)
			return length + n, err
		}
		if err := p.port(name, val); err != nil {
			return 0, err
		}
		at += n
		if q == none {
			return length, nil
		}
	}
}

// head reads NAME=KEY, FLAG=VALUE, ... up to the colon and returns how long it is.
func (p *parser) head(str int) (length int, err error) {
	l := &p.buf
	at := str
	q := l.find(at, ':')
	if q == none {
		return 0, fmt.Errorf("no partition is defined: there is no colon")
	}
	l.put(q, 0)
	body := q + 1
	if q = l.find(at, ','); q != none {
		l.put(q, 0)
	}
	n, name, id := p.token(at)
	at += n
	for q != none {
		if q = l.find(at, ','); q != none {
			l.put(q, 0)
		}
		n, flag, val := p.token(at)
		at += n
		p.flag(flag, val)
	}
	if at != body {
		return 0, fmt.Errorf("a partition is badly defined")
	}
	if err := p.create(name, id); err != nil {
		return 0, err
	}
	return at - str, nil
}

// token is parse_name_token: NAME or NAME=VALUE, and how long both are with the NULs behind them.
func (p *parser) token(str int) (length, name, val int) {
	l := &p.buf
	name = l.skipBlank(str)
	q := l.find(name, '=')
	if q != none {
		l.put(q, 0)
		q++
	}
	length = l.length(str) + 1
	l.strip(name)
	if q == none {
		return length, name, none
	}
	val = l.skipBlank(q)
	length += val + l.length(val) - q + 1
	l.strip(val)
	return length, name, val
}

// prefixOf is strncmp with the length of the word: every prefix of the keyword is taken for it, the empty one, too.
func prefixOf(word, keyword string) bool { return strings.HasPrefix(keyword, word) }

// flag is partition_add_flag. Flags of the multicast group do not change who is a member, and what is none is passed over.
func (p *parser) flag(flag, val int) {
	word, v := p.buf.text(flag), p.buf.text(val)
	if groupFlag(word) || prefixOf(word, "ipoib") {
		return
	}
	switch {
	case prefixOf(word, "defmember"):
		switch {
		case val == none:
		case prefixOf(v, "full"):
			p.conf.member = full
		case prefixOf(v, "both"):
			p.conf.member = both
		case prefixOf(v, "limited"):
			p.conf.member = limited
		}
	case word == "indx0":
		p.conf.index0 = true
	}
}

func groupFlag(word string) bool {
	for _, k := range []string{"mtu", "rate", "scope", "Q_Key", "TClass", "sl", "FlowLabel"} {
		if prefixOf(word, k) {
			return true
		}
	}
	return false
}

// create is partition_create and osm_prtn_make_new.
func (p *parser) create(name, id int) error {
	l := &p.buf
	title := l.text(name)
	if id == none && title != "" && title[0] >= '0' && title[0] <= '9' {
		id, name, title = name, none, ""
	}
	key := uint16(0)
	if id != none {
		s := l.text(id)
		n, used := number(s)
		if used == 0 || used < len(s) {
			return fmt.Errorf("%q is no partition key", s)
		}
		key = uint16(n) &^ 0x8000
	}
	if key == 0 {
		if name != none {
			if part := p.file.named(title); part != nil {
				p.conf.part = part
				return nil
			}
		}
		if key = p.file.free(); key == 0 {
			return fmt.Errorf("no partition key is left")
		}
	}
	part := p.file.parts[key]
	if part == nil {
		part = &partition{key: key, name: title}
		if title == "" {
			part.name = fmt.Sprintf("%04x", key)
		}
		part.name = part.name[:min(len(part.name), 31)]
		p.file.parts[key] = part
	}
	p.conf.part = part
	return nil
}

// named finds the first partition of that name in the order of OpenSM's table, which compares keys as they lie in the memory of a little-endian machine.
func (f *File) named(name string) *partition {
	var best *partition
	swapped := func(k uint16) uint16 { return k<<8 | k>>8 }
	for _, part := range f.parts {
		if part.name == name && (best == nil || swapped(part.key) < swapped(best.key)) {
			best = part
		}
	}
	return best
}

// free gives the next key that no partition has, 0 where there is none.
func (f *File) free() uint16 {
	for f.counter < 0x7ffe {
		f.counter++
		if f.parts[f.counter] == nil {
			return f.counter
		}
	}
	return 0
}

// port is partition_add_port.
func (p *parser) port(name, flag int) error {
	word := p.buf.text(name)
	if word == "" || prefixOf(word, "NONE") {
		return nil
	}
	e := entry{part: p.conf.part, member: p.conf.member, index0: p.conf.index0}
	if flag != none {
		e.member = limited
		switch f := p.buf.text(flag); {
		case prefixOf(f, "full"):
			e.member = full
		case prefixOf(f, "both"):
			e.member = both
		}
	}
	switch {
	case prefixOf(word, "ALL"):
		// of any kind
	case prefixOf(word, "ALL_CAS"):
		e.kind = fabric.CA
	case prefixOf(word, "ALL_SWITCHES"):
		e.kind = fabric.Switch
	case prefixOf(word, "ALL_ROUTERS"):
		e.kind = fabric.Router
	case prefixOf(word, "SELF"):
		e.self = true
	default:
		n, used := number(word)
		if n == 0 || used < len(word) {
			return fmt.Errorf("%q is no port", word)
		}
		e.guid = n
	}
	p.file.entries = append(p.file.entries, e)
	return nil
}

// group is mgroup_create, as far as it says where the line goes on: the rest of it are flags of a multicast group, unless that has no address.
func (p *parser) group(at, mgid int) (int, error) {
	if mgid == none {
		return 0, fmt.Errorf("OpenSM crashes on an mgid without address")
	}
	a, err := netip.ParseAddr(p.buf.text(mgid))
	if err != nil || !a.Is6() || a.Zone() != "" || !a.IsMulticast() {
		return 0, nil
	}
	length := 0
	for {
		q := p.buf.find(at, ',')
		if q != none {
			p.buf.put(q, 0)
		}
		n, _, _ := p.token(at)
		at += n
		length += n
		if q == none {
			return length, nil
		}
	}
}
