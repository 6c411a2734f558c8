package step

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/metalctl/metalctl/fleet"
)

// What agents understand. A field of a message or of a step's parameters that came after version 1 of the agent's protocol has the tag `since:"N"` and is
// left out of the JSON where it is zero; agents refuse fields that they do not know, because one that is passed over could be the one that protects
// something. The server therefore gives an agent only what its version knows.

// NewParams returns a pointer to the parameters of an in-band step, nil for one that has none.
func NewParams(name string) any {
	switch name {
	case EraseDisks, VerifyErase:
		return &EraseParams{}
	case WriteImage, VerifyImage:
		return &ImageParams{}
	case ConfigDrive:
		return &ConfigDriveParams{}
	case BootEntry:
		return &RootParams{}
	case RestoreNS:
		return &NamespacesParams{}
	case CleanVars:
		return &VariablesParams{}
	case CleanGPUs:
		return &fleet.CleanGPUs{}
	case FetchPacks:
		return &PacksParams{}
	case BurnStage:
		return &BurnParams{}
	case ProbeWires:
		return &fleet.ProbeTask{}
	}
	return nil
}

// AgentNeeds is the oldest version of the agent's protocol in which an agent understands a step with these parameters.
func AgentNeeds(name string, params json.RawMessage) (int, error) {
	decl, ok := Find(name)
	if !ok || decl.Side != InBand {
		return 1, nil
	}
	needs := max(decl.Agent, 1)
	p := NewParams(name)
	if p == nil || len(params) == 0 {
		return needs, nil
	}
	if err := json.Unmarshal(params, p); err != nil {
		return 0, fmt.Errorf("parameters of %s: %w", name, err)
	}
	return max(needs, Since(p)), nil
}

// Since is the newest version of the agent's protocol that a field of v needs which is not zero; at least 1.
func Since(v any) int { return since(reflect.ValueOf(v)) }

func since(v reflect.Value) int {
	needs := 1
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return since(v.Elem())
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			needs = max(needs, since(v.Index(i)))
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			needs = max(needs, since(it.Value()))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || v.Field(i).IsZero() {
				continue
			}
			needs = max(needs, SinceTag(f), since(v.Field(i)))
		}
	}
	return needs
}

// SinceTag is the version of the agent's protocol that a field came with.
func SinceTag(f reflect.StructField) int {
	n, err := strconv.Atoi(f.Tag.Get("since"))
	if err != nil {
		return 1
	}
	return n
}

// agentKnows reports whether an agent understands every step from i on that runs on its machine.
func agentKnows(speaks int, steps []fleet.StepRun) bool {
	for _, s := range steps {
		if needs, err := AgentNeeds(s.Name, s.Params); s.Side == InBand && (err != nil || needs > speaks) {
			return false
		}
	}
	return true
}

// AgentGoesOn reports whether an agent that speaks that version understands all that is left of a plan run.
func AgentGoesOn(op fleet.Operation, speaks int) bool {
	i := op.Current()
	return i < 0 || agentKnows(speaks, op.Steps[i:])
}
