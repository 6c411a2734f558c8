package fleet

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestFreezeCovers(t *testing.T) {
	n := Node{ID: "id-1", Name: "n1", Labels: map[string]string{"rack": "r1", "site": "north"}}
	tests := map[string]struct {
		f    Freeze
		want bool
	}{
		"everything":                       {Freeze{Scope: FreezeAll}, true},
		"everything, this one was let out": {Freeze{Scope: FreezeAll, Thawed: []NodeID{"id-1"}}, false},
		"everything, another was let out":  {Freeze{Scope: FreezeAll, Thawed: []NodeID{"id-2"}}, true},
		"named":                            {Freeze{Scope: FreezeNodes, Nodes: []NodeID{"id-2", "id-1"}}, true},
		"another is named":                 {Freeze{Scope: FreezeNodes, Nodes: []NodeID{"id-2"}}, false},
		"its site":                         {Freeze{Scope: FreezeSite, Site: "north"}, true},
		"another site":                     {Freeze{Scope: FreezeSite, Site: "south"}, false},
		"another site now, this one when it froze": {Freeze{Scope: FreezeSite, Site: "south", Nodes: []NodeID{"id-1"}}, true},
		"its labels":        {Freeze{Scope: FreezeLabels, Labels: map[string]string{"rack": "r1", "site": "north"}}, true},
		"one label differs": {Freeze{Scope: FreezeLabels, Labels: map[string]string{"rack": "r1", "site": "south"}}, false},
		"a label that it lacks is not an empty one":  {Freeze{Scope: FreezeLabels, Labels: map[string]string{"row": ""}}, false},
		"labels matched when it froze":               {Freeze{Scope: FreezeLabels, Labels: map[string]string{"rack": "r9"}, Nodes: []NodeID{"id-1"}}, true},
		"labels matched when it froze, then let out": {Freeze{Scope: FreezeLabels, Labels: map[string]string{"rack": "r9"}, Nodes: []NodeID{"id-1"}, Thawed: []NodeID{"id-1"}}, false},
		"a scope of a newer program":                 {Freeze{Scope: "rail"}, true},
	}
	for name, x := range tests {
		if got := x.f.Covers(n); got != x.want {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

func TestFrozenByTheOldest(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := Node{ID: "id-1", Name: "n1"}
	all := []Freeze{
		{ID: "a", Scope: FreezeAll, Since: at.Add(time.Minute), Reason: "later"},
		{ID: "b", Scope: FreezeNodes, Nodes: []NodeID{"id-1"}, Since: at, Reason: "first", By: "admin", Source: FrozenByPerson},
		{ID: "c", Scope: FreezeNodes, Nodes: []NodeID{"id-2"}, Since: at.Add(-time.Hour), Reason: "another node's"},
	}
	f := FrozenBy(n, all)
	if f == nil || f.ID != "b" {
		t.Fatalf("frozen by %+v", f)
	}
	if why := f.Why(n); !strings.Contains(why, "first") || !strings.Contains(why, "metalctl thaw n1") {
		t.Errorf("why: %s", why)
	}
	if f := FrozenBy(Node{ID: "id-3"}, all[1:]); f != nil {
		t.Errorf("nobody froze it: %+v", f)
	}
	err := f.Refuse(n, "release")
	if KindOf(err) != Refused || CodeOf(err) != CodeFrozen || !strings.Contains(HintOf(err), "metalctl thaw n1") {
		t.Errorf("refusal: %+v", err)
	}
}

func TestFreezeIsChecked(t *testing.T) {
	tests := map[string]struct {
		f     Freeze
		field string
	}{
		"no reason":          {Freeze{Scope: FreezeAll, Source: FrozenByPerson, Reason: " "}, "reason"},
		"no scope":           {Freeze{Reason: "r", Source: FrozenByPerson}, "scope"},
		"no nodes":           {Freeze{Scope: FreezeNodes, Reason: "r", Source: FrozenByPerson}, "nodes"},
		"an empty selector":  {Freeze{Scope: FreezeLabels, Reason: "r", Source: FrozenByPerson}, "labels"},
		"no site":            {Freeze{Scope: FreezeSite, Reason: "r", Source: FrozenByPerson}, "site"},
		"nobody's":           {Freeze{Scope: FreezeAll, Reason: "r"}, "source"},
		"all is as it ought": {Freeze{Scope: FreezeAll, Reason: "r", Source: FrozenByRestore}, ""},
	}
	for name, x := range tests {
		err := x.f.Check()
		var e *Error
		switch {
		case x.field == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case x.field == "":
		case !errors.As(err, &e) || e.Kind != Invalid || len(e.Fields) != 1 || e.Fields[0].Field != x.field:
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIsFrozen(t *testing.T) {
	frozen := (Freeze{Reason: "r"}).Refuse(Node{Name: "n1"}, "write to")
	for name, err := range map[string]error{
		"itself": frozen, "wrapped": fmt.Errorf("insert: %w", frozen), "joined": errors.Join(errors.New("x"), frozen),
		"under another code": Errorf(Broken, "MC-BMC-NO-MEDIA", "no slot took it: %w", frozen),
	} {
		if !IsFrozen(err) {
			t.Errorf("%s is not seen", name)
		}
	}
	for _, err := range []error{nil, errors.New("x"), Errorf(Refused, "MC-NODE-HELD", "held")} {
		if IsFrozen(err) {
			t.Errorf("%v is taken for frozen", err)
		}
	}
}
