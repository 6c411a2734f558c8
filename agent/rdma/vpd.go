package rdma

import (
	"errors"
	"io/fs"
	"strings"
)

// vital reads a function's vital product data: part number (PN), serial number (SN) and the vendor's keywords.
func (r *reading) vital(name, pci string) map[string]string {
	b, err := r.Bytes(pci, "vpd")
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.missing("hca/"+name+" vpd", err)
		}
		return nil
	}
	return parseVPD(b)
}

// parseVPD returns the keywords of the read-only part (PCI Local Bus 3.0, appendix I): resources of a tag and a length, and in the one with tag 90h keywords
// of two letters, a length and a text. What is cut short ends the list.
func parseVPD(b []byte) map[string]string {
	out := map[string]string{}
	for len(b) >= 1 {
		tag, head, size := b[0], 1, int(b[0]&7)
		if tag&0x80 != 0 {
			if len(b) < 3 {
				return out
			}
			head, size = 3, int(b[1])|int(b[2])<<8
		} else if tag>>3 == 0x0f {
			return out
		}
		if head+size > len(b) {
			return out
		}
		if tag == 0x90 {
			keywords(b[head:head+size], out)
		}
		b = b[head+size:]
	}
	return out
}

func keywords(b []byte, out map[string]string) {
	for len(b) >= 3 && 3+int(b[2]) <= len(b) {
		name, value := string(b[:2]), b[3:3+int(b[2])]
		if name != "RV" { // the check sum, and room that is left
			out[name] = plainText(value)
		}
		b = b[3+len(value):]
	}
}

// plainText is what of a vendor's text can be printed.
func plainText(b []byte) string {
	return strings.TrimSpace(strings.Map(func(c rune) rune {
		if c < 0x20 || c > 0x7e {
			return -1
		}
		return c
	}, string(b)))
}
