package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
	"github.com/metalctl/metalctl/fleet/step"
)

// newProtocolEnv lets the test write the form of a version that has none yet; what is there is never written again.
const newProtocolEnv = "METALCTL_NEW_PROTOCOL"

// protocol is the form of the agent's protocol at a version: every path, every field of every message, and what each step is given.
type protocol struct {
	Version  int               `json:"version"`
	Paths    []string          `json:"paths"`
	Messages map[string]any    `json:"messages"`
	Steps    map[string]any    `json:"steps"`
	Answers  map[string]string `json:"answers"`
}

func protocolAt(version int) protocol {
	p := protocol{Version: version, Messages: map[string]any{}, Steps: map[string]any{},
		Paths: []string{api.AgentRegisterPath, api.AgentTaskPath, api.AgentResultPath, api.AgentProgressPath, api.AgentReportPath, api.AgentUserDataPath, api.AgentPackPath},
		Answers: map[string]string{"204": "nothing to do, or taken", "401": "unknown session: register again", "403": "refused: end, unless the kind is refused",
			"410": "this boot is over: end"}}
	for _, m := range []any{fleet.Credential{}, api.Register{}, api.Registered{}, api.Task{}, api.Result{}, api.Report{}, fleet.Progress{}} {
		t := reflect.TypeOf(m)
		p.Messages[t.Name()] = form(t, version)
	}
	for _, s := range step.Catalogue {
		if s.Side != step.InBand || max(s.Agent, 1) > version {
			continue
		}
		p.Steps[s.Name] = nil
		if params := step.NewParams(s.Name); params != nil {
			p.Steps[s.Name] = form(reflect.TypeOf(params).Elem(), version)
		}
	}
	return p
}

// form describes what JSON a type is at a version of the protocol.
func form(t reflect.Type, version int) any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[json.RawMessage]():
		return "any"
	case t == reflect.TypeFor[fleet.Secret]():
		return "secret"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return form(t.Elem(), version)
	case reflect.Slice:
		return []any{form(t.Elem(), version)}
	case reflect.Map:
		return map[string]any{"*": form(t.Elem(), version)}
	case reflect.Struct:
		fields := map[string]any{}
		for i := range t.NumField() {
			f := t.Field(i)
			tag, opt, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !f.IsExported() || tag == "-" || f.Tag.Get("agent") == "-" || step.SinceTag(f) > version {
				continue // agent:"-" is the server's own: no agent is sent it, or sends it
			}
			if opt != "" {
				tag += "?"
			}
			fields[tag] = form(f.Type, version)
		}
		return fields
	}
	return t.Kind().String()
}

// TestAgentProtocol: the form of the protocol is that of its version. A machine that runs for weeks speaks what it was booted with.
func TestAgentProtocol(t *testing.T) {
	for version := max(1, api.AgentVersion-1); version <= api.AgentVersion; version++ {
		path := fmt.Sprintf("testdata/agent-protocol-v%d.json", version)
		b, err := json.MarshalIndent(protocolAt(version), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got := string(b) + "\n"
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && os.Getenv(newProtocolEnv) != "" {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("version %d of the agent's protocol has no form in testdata: %v\nmake it: %s=1 go test -run TestAgentProtocol ./fleet/api, and record its bodies in fleet/server/testdata", version, err, newProtocolEnv)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("what agents of version %d are sent, or send, is not what they know.\nRaise api.AgentVersion, give new fields the tag since:\"%d\" with omitempty, and new steps Agent: %d (fleet/step/since.go says why).\n%s",
				version, api.AgentVersion+1, api.AgentVersion+1, diff)
		}
	}
	if _, err := os.Lstat(fmt.Sprintf("testdata/agent-protocol-v%d.json", api.AgentVersion+1)); err == nil {
		t.Errorf("there is a form of version %d, and this program speaks %d", api.AgentVersion+1, api.AgentVersion)
	}
}

// TestNewFieldsAreLeftOut: a field that came later is not in the JSON where it is zero, and none is from the future.
func TestNewFieldsAreLeftOut(t *testing.T) {
	var look func(t *testing.T, x reflect.Type, at string)
	look = func(t *testing.T, x reflect.Type, at string) {
		for x.Kind() == reflect.Pointer || x.Kind() == reflect.Slice || x.Kind() == reflect.Map {
			x = x.Elem()
		}
		if x.Kind() != reflect.Struct || x == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range x.NumField() {
			f := x.Field(i)
			if !f.IsExported() {
				continue
			}
			_, opt, _ := strings.Cut(f.Tag.Get("json"), ",")
			since := step.SinceTag(f)
			if since > api.AgentVersion || since > 1 && opt == "" {
				t.Errorf("%s.%s: since %d with %q; the protocol is at %d, and older agents must not see it", at, f.Name, since, opt, api.AgentVersion)
			}
			look(t, f.Type, at+"."+f.Name)
		}
	}
	for _, m := range []any{api.Register{}, api.Registered{}, api.Task{}, api.Result{}, api.Report{}, fleet.Credential{}} {
		look(t, reflect.TypeOf(m), reflect.TypeOf(m).Name())
	}
	for _, s := range step.Catalogue {
		if s.Agent > api.AgentVersion || s.Agent > 0 && s.Side != step.InBand {
			t.Errorf("%s is said to have come with version %d of the agent's protocol, which is at %d", s.Name, s.Agent, api.AgentVersion)
		}
		if p := step.NewParams(s.Name); p != nil {
			look(t, reflect.TypeOf(p), s.Name)
		}
	}
}
