package netconf

import (
	"bufio"
	"bytes"
	"encoding/xml"
	"fmt"
	"testing"

	"github.com/metalctl/metalctl/fleet"
)

// FuzzReply: whatever a switch answers, a port without a doubt carries VLANs that can be.
func FuzzReply(f *testing.F) {
	port := `<interface><name>a</name><config><enabled>true</enabled></config><state><enabled>true</enabled></state><ethernet xmlns="` + ethernetNS + `"><switched-vlan xmlns="` + vlanNS + `"><config>%s</config><state>%s</state></switched-vlan></ethernet></interface>`
	for _, v := range []string{"<interface-mode>ACCESS</interface-mode><access-vlan>101</access-vlan>", "<interface-mode>TRUNK</interface-mode><trunk-vlans>5..9</trunk-vlans>", ""} {
		f.Add(fmt.Sprintf(`<rpc-reply xmlns="`+baseNS+`" message-id="1"><data><interfaces xmlns="`+interfacesNS+`">`+port+`</interfaces></data></rpc-reply>`, v, v))
	}
	f.Add(`<rpc-reply xmlns="` + baseNS + `"><ok/></rpc-reply>`)
	f.Add(`<hello xmlns="` + baseNS + `"><capabilities><capability>` + base10 + `</capability></capabilities></hello>`)
	f.Fuzz(func(t *testing.T, text string) {
		if has, err := parseHello([]byte(text)); err == nil && len(has) == 0 {
			t.Error("a hello without capabilities")
		}
		r, err := parseReply([]byte(text))
		if err != nil || r.Data == nil {
			return
		}
		for _, x := range r.Data.Interfaces {
			p := x.view(true)
			if p.Doubt != "" {
				continue
			}
			for _, v := range append(p.Carries.Tagged, p.Carries.Untagged) {
				if v > 4094 {
					t.Errorf("%q carries VLAN %d", p.Port, v)
				}
			}
		}
	})
}

// FuzzFraming: reading ends, and what was framed in chunks is read as it was.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("\n#3\nabc\n#2\nde\n##\n"))
	f.Add([]byte("<hello/>]]>]]>"))
	f.Add([]byte("\n#4294967295\nx"))
	f.Add([]byte("\n#03\nabc\n##\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = readEnded(bufio.NewReader(bytes.NewReader(raw))) // any bytes are fine, or an error
		got, err := readChunked(bufio.NewReader(bytes.NewReader(raw)))
		if err == nil && (len(got) == 0 || len(got) > len(raw)) {
			t.Errorf("%q holds %q", raw, got)
		}
		if len(raw) > 0 {
			framed := fmt.Sprintf("\n#%d\n%s\n##\n", len(raw), raw)
			if got, err := readChunked(bufio.NewReader(bytes.NewReader([]byte(framed)))); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("%q comes back as %q: %v", raw, got, err)
			}
		}
	})
}

// TestEditIsData: whatever a port is called, the edit has that many ports, and the name is its text.
func TestEditIsData(t *testing.T) {
	for _, name := range []string{"et-1", "</name><name>x", "a&b", "]]>]]>", "\n##\n"} {
		var got struct {
			Ports []string `xml:"interfaces>interface>name"`
		}
		if err := xml.Unmarshal([]byte(edit([]fleet.WireChange{{Port: name, To: fleet.Carries{Untagged: 101}}})), &got); err != nil || len(got.Ports) != 1 || got.Ports[0] != name {
			t.Errorf("%q is written as %q: %v", name, got.Ports, err)
		}
	}
}
