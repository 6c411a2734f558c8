package cli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/metalctl/metalctl/fleet"
)

// eos is Arista EOS, from 4.22 on: configuration sessions with a commit timer.
func eos() *Platform {
	return &Platform{
		Name: "eos", Title: "Arista EOS",
		More:  regexp.MustCompile(`^ ?--More-- ?$`),
		Error: regexp.MustCompile(`^% `),
		Expected: []*regexp.Regexp{
			regexp.MustCompile(`^Copy completed successfully\.$`),
		},
		Enable: "enable",
		Quiet:  []string{"terminal length 0", "terminal width 32767"},

		Running: "show running-config", Switching: "show interfaces switchport | json",
		switching: eosSwitching,
		Harmless: []string{"description", "speed", "mtu", "load-interval", "error-correction", "flowcontrol", "lldp", "no lldp", "logging event", "no logging event", "snmp trap", "no snmp trap",
			"storm-control", "priority-flow-control", "dcbx", "qos trust", "sflow", "no sflow", "spanning-tree portfast", "spanning-tree bpduguard enable", "spanning-tree guard"},
		RoutedByDefault: "switchport default mode routed",

		Save: []string{"write memory"},
		way: session{
			sessions: "show configuration sessions | json",
			begin:    "configure session {name}", candidate: "show session-config", discard: "abort",
			commit: "commit", commitTimer: "commit timer 00:05:00",
			confirm: "configure session {name} commit", abort: "configure session {name} abort",
		},
	}
}

// eosSwitching reads "show interfaces switchport | json".
func eosSwitching(answer string) (map[string]operation, error) {
	var in struct {
		Switchports map[string]struct {
			Enabled bool `json:"enabled"`
			Info    *struct {
				Mode    string `json:"mode"`
				Access  int    `json:"accessVlanId"`
				Native  int    `json:"trunkingNativeVlanId"`
				Allowed string `json:"trunkAllowedVlans"`
			} `json:"switchportInfo"`
		} `json:"switchports"`
	}
	if err := oneJSON(answer, &in); err != nil {
		return nil, err
	}
	out := map[string]operation{}
	for name, s := range in.Switchports {
		if !s.Enabled || s.Info == nil {
			out[name] = operation{doubt: "is routed"}
			continue
		}
		o := operation{mode: s.Info.Mode, access: fleet.VLAN(s.Info.Access), native: fleet.VLAN(s.Info.Native)}
		var err error
		switch strings.ToUpper(s.Info.Allowed) {
		case "NONE", "":
		case "ALL":
			o.allowed, err = parseVLANs("1-4094")
		default:
			o.allowed, err = parseVLANs(s.Info.Allowed)
		}
		if err != nil {
			return nil, fmt.Errorf("port %s: %w", shown(name), err)
		}
		out[name] = o
	}
	return out, nil
}

// oneJSON decodes an answer that is one JSON value and nothing else.
func oneJSON(answer string, into any) error {
	d := json.NewDecoder(strings.NewReader(answer))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("the answer is not JSON: %w: %s", err, last(answer))
	}
	if d.More() {
		return fmt.Errorf("the answer has more behind its JSON: %s", last(answer))
	}
	return nil
}
