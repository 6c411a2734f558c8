package kmsg

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// nvlink5 is the form of XIDs 144 to 150 on NVLink 5: "RLW_RXPIPE Nonfatal XC0 i0 Link 08 (0x004505c6 0x00000000 0x00000000 ...)".
var nvlink5 = regexp.MustCompile(`\b([A-Z][A-Z0-9_]+) +(Fatal|Nonfatal) +(XC[01]) +i(\d+) +Link (-?\d+) \(((?:0x[0-9a-fA-F]{1,8} ?)+)\)`)

// linkText is how XIDs of older links name the one that is meant.
var linkText = regexp.MustCompile(`\b[Ll]ink (\d{1,2})\b`)

// NVLink5 is what an XID of NVLink 5's units says beyond its number.
type NVLink5 struct {
	Unit  string
	Fatal bool
	Link  int // -1 where the line names none
	// SubCode is in bits 20 to 25 of the first word of the intrinsics.
	SubCode int
	Words   []uint32
}

// DecodeNVLink5 reads the text behind the number of an XID 144 to 150.
func DecodeNVLink5(text string) (d NVLink5, ok bool) {
	m := nvlink5.FindStringSubmatch(text)
	if m == nil {
		return d, false
	}
	d = NVLink5{Unit: m[1], Fatal: m[2] == "Fatal"}
	var err error
	if d.Link, err = strconv.Atoi(m[5]); err != nil || d.Link < -1 || d.Link > 255 {
		return d, false
	}
	for w := range strings.FieldsSeq(m[6]) {
		n, err := strconv.ParseUint(strings.TrimPrefix(w, "0x"), 16, 32)
		if err != nil {
			return d, false
		}
		d.Words = append(d.Words, uint32(n))
	}
	d.SubCode = int(d.Words[0] >> 20 & 0x3f)
	return d, true
}

// link is the end of a component's name where an XID is of one link: /nvlink/8.
func link(code int, text string) string {
	switch {
	case code >= 144 && code <= 150:
		if d, ok := DecodeNVLink5(text); ok && d.Link >= 0 {
			return fmt.Sprintf("/nvlink/%d", d.Link)
		}
	case code == 74 || code == 136:
		if m := linkText.FindStringSubmatch(text); m != nil {
			return "/nvlink/" + strconv.Itoa(number(m[1]))
		}
	}
	return ""
}

// xidSeverity is what the line says; most say nothing, and the number decides.
func xidSeverity(text string) string {
	if d, ok := DecodeNVLink5(text); ok {
		if d.Fatal {
			return "fatal"
		}
		return "nonfatal"
	}
	return ""
}
