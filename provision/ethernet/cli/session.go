package cli

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet"
)

// session makes changes by a candidate that is committed as a whole, at first for a time only.
type session struct {
	// sessions shows them all as JSON; begin, candidate and discard are typed in one.
	sessions                  string
	begin, candidate, discard string
	commit, commitTimer       string
	confirm, abort            string
}

const (
	sessionPrefix  = "metalctl-"
	statePending   = "pendingCommitTimer" // committed for a time
	stateCandidate = "pending"            // not committed
)

// list returns the state of each session by its name.
func (s session) list(d *device, t *terminal) (map[string]string, error) {
	answer, err := t.ask(s.sessions)
	if err != nil {
		return nil, err
	}
	states, err := eosSessions(answer)
	if err != nil {
		return nil, d.strange(s.sessions, err)
	}
	return states, nil
}

func eosSessions(answer string) (map[string]string, error) {
	var in struct {
		Sessions map[string]struct {
			State string `json:"state"`
		} `json:"sessions"`
	}
	if err := oneJSON(answer, &in); err != nil {
		return nil, err
	}
	if in.Sessions == nil {
		return nil, errors.New("there are no sessions in the answer")
	}
	out := map[string]string{}
	for name, x := range in.Sessions {
		out[name] = x.State
	}
	return out, nil
}

// committed are the sessions that did or will do something to the configuration, but for one.
func committed(states map[string]string, but string) map[string]string {
	out := maps.Clone(states)
	maps.DeleteFunc(out, func(name, state string) bool { return name == but || state == stateCandidate })
	return out
}

func (s session) open(d *device, t *terminal) (string, error) {
	states, err := s.list(d, t)
	if err != nil {
		return "", err
	}
	return openIn(states), nil
}

// openIn is the name of the change that is committed for a time.
func openIn(states map[string]string) string {
	for _, name := range slices.Sorted(maps.Keys(states)) {
		if states[name] == statePending {
			ours, found := strings.CutPrefix(name, sessionPrefix)
			if !found {
				return ethernet.OpenUnknown
			}
			return ours
		}
	}
	return ""
}

func (s session) named(template, name string) (string, error) {
	return fill(template, map[string]string{"name": sessionPrefix + name})
}

// write commits for a time. What another one commits between our look at the sessions and our commit is seen right after it, and ours is taken back: EOS
// would have put our whole candidate over it.
func (s session) write(d *device, t *terminal, w ethernet.Write, may func(ethernet.Reading) error) error {
	before, err := s.list(d, t)
	if err != nil {
		return err
	}
	own := sessionPrefix + w.Name
	if open := openIn(before); open != "" {
		r, _, err := d.read(t)
		if err != nil {
			return err
		}
		r.Open = open
		return may(r)
	}
	abort, err := s.named(s.abort, w.Name)
	if err != nil {
		return err
	}
	if before[own] == stateCandidate { // of somebody who was interrupted: it was begun from an older state
		if err := t.tell(abort); err != nil {
			return err
		}
	}
	begin, err := s.named(s.begin, w.Name)
	if err != nil {
		return err
	}
	if err := t.tell(begin); err != nil {
		return err
	}
	if err := s.fillIn(d, t, w, may); err != nil {
		return s.drop(t, err)
	}
	if w.Keep {
		if err := t.tell(s.commit); err != nil {
			return s.outrun(d, t, own, before, s.drop(t, err))
		}
		return t.tell(d.platform.Save...)
	}
	if err := t.tell(s.commitTimer); err != nil {
		return s.outrun(d, t, own, before, s.drop(t, err))
	}
	after, err := s.list(d, t)
	if err != nil {
		return err
	}
	if !maps.Equal(committed(before, own), committed(after, own)) {
		if err := t.tell(abort); err != nil {
			return err
		}
		return fleet.WireConflict("somebody else committed on %s at the same time", d.sw.Name)
	}
	return nil
}

// drop leaves a session that is not committed, after err.
func (s session) drop(t *terminal, err error) error {
	if t.stream == nil || fleet.KindOf(err) == fleet.Unavailable || fleet.KindOf(err) == fleet.Timeout {
		return err // there is nobody to tell; it was not committed, and the next one of this name discards it
	}
	return errors.Join(err, t.tell(s.discard))
}

// outrun turns the refusal of a commit into a conflict where that is because of another one.
func (s session) outrun(d *device, t *terminal, own string, before map[string]string, err error) error {
	if !errors.Is(err, errRefused) {
		return err
	}
	if after, listErr := s.list(d, t); listErr == nil && !maps.Equal(committed(before, own), committed(after, own)) {
		return fleet.WireConflict("somebody else committed on %s at the same time", d.sw.Name)
	}
	return err
}

// fillIn looks, types the commands and compares the candidate with what is in force: nothing but the change may differ.
func (s session) fillIn(d *device, t *terminal, w ethernet.Write, may func(ethernet.Reading) error) error {
	r, st, err := d.read(t)
	if err != nil {
		return err
	}
	if err := may(r); err != nil {
		return err
	}
	typed, err := commands(st, w.Changes, d.sw.Quarantine)
	if err != nil {
		return err
	}
	if err := t.tell(typed...); err != nil {
		return err
	}
	text, err := t.ask(s.candidate)
	if err != nil {
		return err
	}
	candidate, err := d.platform.readIndented(text)
	if err != nil {
		return d.strange(s.candidate, err)
	}
	text, err = t.ask(d.platform.Running)
	if err != nil {
		return err
	}
	running, err := d.platform.readIndented(text)
	if err != nil {
		return d.strange(d.platform.Running, err)
	}
	if f := running.foreign(candidate, w.Changes, needed(w.Changes, d.sw.Quarantine)); f != "" {
		return fleet.WireConflict("the candidate on %s differs from what is in force in %s, which is not of the plan", d.sw.Name, f)
	}
	return nil
}

// settle confirms the commit. What was confirmed and not saved is saved.
func (s session) settle(d *device, t *terminal, name string) error {
	states, err := s.list(d, t)
	if err != nil {
		return err
	}
	switch openIn(states) {
	case name:
		confirm, err := s.named(s.confirm, name)
		if err != nil {
			return err
		}
		if err := t.tell(confirm); err != nil {
			return err
		}
	case "":
	default:
		return nil // what is in force may be another one's, for a time only
	}
	if err := t.tell(d.platform.Save...); err != nil {
		return fmt.Errorf("keep the change over a restart: %w", err)
	}
	return nil
}

func (s session) undo(d *device, t *terminal, w ethernet.Write) (bool, error) {
	states, err := s.list(d, t)
	if err != nil {
		return false, err
	}
	state := states[sessionPrefix+w.Name]
	if state != statePending && state != stateCandidate {
		return false, nil
	}
	abort, err := s.named(s.abort, w.Name)
	if err != nil {
		return false, err
	}
	return state == statePending, t.tell(abort)
}
