package opensm

import (
	"errors"
	"math"
)

// line is the buffer of 4,096 bytes that OpenSM reads a file's lines into, one over the other. Its parser puts NULs into it and walks by offsets, sometimes
// past the end of the line; so the model does the same with the same bytes. An offset outside is where OpenSM would touch memory that is not the line's.
type line [4096]byte

var errOutside = errors.New("OpenSM would read beyond its buffer")

// none is a pointer that is NULL.
const none = -1

// at is the byte at p.
func (l *line) at(p int) byte {
	if p < 0 || p >= len(l) {
		panic(errOutside)
	}
	return l[p]
}

func (l *line) put(p int, c byte) {
	if p < 0 || p >= len(l) {
		panic(errOutside)
	}
	l[p] = c
}

// length is strlen.
func (l *line) length(p int) int {
	n := 0
	for l.at(p+n) != 0 {
		n++
	}
	return n
}

// find is strchr.
func (l *line) find(p int, c byte) int {
	for ; l.at(p) != 0; p++ {
		if l.at(p) == c {
			return p
		}
	}
	return none
}

// text is the string at p, "" for NULL.
func (l *line) text(p int) string {
	if p == none {
		return ""
	}
	return string(l[p : p+l.length(p)])
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

func (l *line) skipBlank(p int) int {
	for blank(l.at(p)) {
		p++
	}
	return p
}

// strip overwrites blanks at the end of the string at p, as OpenSM does: never its first byte.
func (l *line) strip(p int) {
	for q := p + l.length(p); q != p && (l.at(q) == 0 || blank(l.at(q))); q-- {
		l.put(q, 0)
	}
}

// number is strtoul with base 0: the value, and how many bytes it took, 0 where there is no number. Overflow gives the largest value, and a minus the
// negated one, as in C.
func number(s string) (uint64, int) {
	i := 0
	for i < len(s) && (s[i] == ' ' || s[i] >= '\t' && s[i] <= '\r') {
		i++
	}
	negative := false
	if i < len(s) && (s[i] == '+' || s[i] == '-') {
		negative = s[i] == '-'
		i++
	}
	base := uint64(10)
	if i < len(s) && s[i] == '0' {
		base = 8
		if i+2 < len(s) && s[i+1]|0x20 == 'x' && digit(s[i+2]) < 16 {
			base, i = 16, i+2
		}
	}
	start, n, over := i, uint64(0), false
	for ; i < len(s) && digit(s[i]) < base; i++ {
		d := digit(s[i])
		if n > (math.MaxUint64-d)/base {
			over = true
		}
		n = n*base + d
	}
	switch {
	case i == start:
		return 0, 0
	case over:
		return math.MaxUint64, i
	case negative:
		return -n, i
	}
	return n, i
}

func digit(c byte) uint64 {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'z':
		return uint64(c|0x20-'a') + 10
	}
	return 99
}
