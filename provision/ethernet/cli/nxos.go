package cli

import (
	"encoding/json"
	"fmt"
	"regexp"

	"github.com/metalctl/metalctl/fleet"
)

// nxos is Cisco NX-OS of Nexus 3000 and 9000 switches. Its commands count one by one; a checkpoint with a name that can be there only once keeps others out.
func nxos() *Platform {
	return &Platform{
		Name: "nxos", Title: "Cisco NX-OS",
		More:  regexp.MustCompile(`^ ?--More--(?:\(\d+%\))? ?$`),
		Error: regexp.MustCompile(`^(?:% |ERROR: |Error: |Syntax error)`),
		Expected: []*regexp.Regexp{
			regexp.MustCompile(`^\.*Done$`),
			regexp.MustCompile(`^Enter configuration commands, one per line\. End with CNTL/Z\.$`),
			regexp.MustCompile(`^\[[# ]*\] *\d+%$`),
			regexp.MustCompile(`^Copy complete, now saving to disk \(please wait\)\.\.\.$`),
			regexp.MustCompile(`^Copy complete\.$`),
		},
		Quiet: []string{"terminal length 0", "terminal width 511"},

		Running: "show running-config", Switching: "show interface switchport | json",
		switching: nxosSwitching,
		Harmless: []string{"description", "speed", "duplex", "mtu", "load-interval", "fec", "flowcontrol", "lldp", "no lldp", "cdp", "no cdp", "logging event", "storm-control", "priority-flow-control",
			"snmp trap", "no snmp trap", "spanning-tree port type edge", "spanning-tree bpduguard enable", "spanning-tree guard"},
		DownByDefault: "system default switchport shutdown", RoutedByDefault: "no system default switchport",

		Save: []string{"copy running-config startup-config"},
		way: claim{
			begin: []string{"configure terminal"}, end: []string{"end"},
			take: "checkpoint metalctl-change description {name} until {until}", drop: "no checkpoint metalctl-change",
			show: "show checkpoint summary", parse: checkpointOf,
		},
	}
}

// rows is a table of NX-OS in JSON: an array, and where it has one row, that row.
type rows[T any] []T

func (r *rows[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]T)(r))
	}
	var one T
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*r = rows[T]{one}
	return nil
}

// nxosSwitching reads "show interface switchport | json".
func nxosSwitching(answer string) (map[string]operation, error) {
	var in struct {
		Table struct {
			Rows rows[struct {
				Interface  string `json:"interface"`
				Switchport string `json:"switchport"`
				Mode       string `json:"oper_mode"`
				Access     string `json:"access_vlan"`
				Native     string `json:"native_vlan"`
				Allowed    string `json:"trunk_vlans"`
			}] `json:"ROW_interface"`
		} `json:"TABLE_interface"`
	}
	if err := oneJSON(answer, &in); err != nil {
		return nil, err
	}
	out := map[string]operation{}
	for _, r := range in.Table.Rows {
		if _, twice := out[r.Interface]; twice {
			return nil, fmt.Errorf("port %q stands there twice", shown(r.Interface))
		}
		if r.Switchport != "Enabled" {
			out[r.Interface] = operation{doubt: "is routed"}
			continue
		}
		o := operation{mode: r.Mode}
		if r.Mode == "down" {
			o.mode = ""
		}
		var errs [3]error
		o.access, errs[0] = parseVLAN(r.Access)
		o.native, errs[1] = parseVLAN(r.Native)
		if r.Allowed != "none" && r.Allowed != "" {
			var v []fleet.VLAN
			v, errs[2] = parseVLANs(r.Allowed)
			o.allowed = v
		}
		for _, err := range errs {
			if err != nil {
				return nil, fmt.Errorf("port %s: %w", shown(r.Interface), err)
			}
		}
		out[r.Interface] = o
	}
	return out, nil
}

var (
	checkpointHead = regexp.MustCompile(`^\d+\) (\S+):$`)
	checkpointText = regexp.MustCompile(`^Description: (.*)$`)
)

// checkpointOf reads "show checkpoint summary" and returns the description of our checkpoint, false where there is none.
func checkpointOf(answer string) (string, bool) {
	ours := false
	for _, line := range screen([]byte(answer)) {
		if m := checkpointHead.FindStringSubmatch(line); m != nil {
			ours = m[1] == "metalctl-change"
		} else if m := checkpointText.FindStringSubmatch(line); m != nil && ours {
			return m[1], true
		}
	}
	return "", ours
}
