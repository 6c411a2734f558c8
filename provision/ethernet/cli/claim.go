package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet"
)

// claim makes changes by commands that count one by one, while something on the switch that can be there only once says whose turn it is and what it writes.
type claim struct {
	begin, end []string
	// take fails where the claim is there already. It has {name} and {until}, a time.
	take, drop string
	show       string
	parse      func(answer string) (text string, there bool)
}

// turn is how long a claim holds of which nothing more is heard.
const turn = 5 * time.Minute

const claimTime = "20060102T150405Z"

// held returns the name of the change whose claim is there, "" for none or one whose time is over.
func (c claim) held(d *device, t *terminal) (name string, there bool, err error) {
	answer, err := t.ask(c.show)
	if err != nil {
		return "", false, err
	}
	text, there := c.parse(answer)
	if !there {
		return "", false, nil
	}
	words := strings.Fields(text)
	if len(words) != 3 || words[1] != "until" {
		return ethernet.OpenUnknown, true, nil // somebody made it by hand, and has to drop it
	}
	until, err := time.Parse(claimTime, words[2])
	if err != nil {
		return ethernet.OpenUnknown, true, nil
	}
	if d.now().After(until) {
		return "", true, nil
	}
	return words[0], true, nil
}

func (c claim) open(d *device, t *terminal) (string, error) {
	name, _, err := c.held(d, t)
	return name, err
}

func (c claim) write(d *device, t *terminal, w ethernet.Write, may func(ethernet.Reading) error) error {
	open, there, err := c.held(d, t)
	if err != nil {
		return err
	}
	took := false
	if open == "" {
		if took, err = c.claimed(d, t, w.Name, there); err != nil {
			return err
		}
		if !took {
			return fleet.WireConflict("another change of %s goes on", d.sw.Name)
		}
	}
	r, st, err := d.read(t)
	if err != nil {
		return err
	}
	r.Open = open
	if err := may(r); err != nil {
		if took && fleet.KindOf(err) != fleet.Unavailable {
			err = errors.Join(err, t.tell(c.drop))
		}
		return err
	}
	if err := c.typeIn(d, t, st, w.Changes); err != nil {
		return err
	}
	if w.Keep {
		return c.settle(d, t, w.Name)
	}
	return nil
}

// claimed takes the claim, false where another one was first.
func (c claim) claimed(d *device, t *terminal, name string, stale bool) (bool, error) {
	if stale {
		if err := t.tell(c.drop); err != nil && !errors.Is(err, errRefused) {
			return false, err
		}
	}
	take, err := fill(c.take, map[string]string{"name": name, "until": d.now().UTC().Add(turn).Format(claimTime)})
	if err != nil {
		return false, err
	}
	err = t.tell(take)
	if err != nil && !errors.Is(err, errRefused) {
		return false, err
	}
	held, _, heldErr := c.held(d, t)
	switch {
	case heldErr != nil:
		return false, heldErr
	case held == name:
		return true, nil
	case held != "":
		return false, nil
	}
	return false, errors.Join(err, fleet.WireConflict("the claim on %s is gone again", d.sw.Name))
}

func (c claim) typeIn(d *device, t *terminal, st *state, changes []fleet.WireChange) error {
	typed, err := commands(st, changes, d.sw.Quarantine)
	if err != nil {
		return err
	}
	if err := t.tell(c.begin...); err != nil {
		return err
	}
	if err := t.tell(typed...); err != nil {
		return fmt.Errorf("in the middle of a change, with the port off: %w", err)
	}
	return t.tell(c.end...)
}

// settle saves and then gives the claim back, so that who is interrupted saves again.
func (c claim) settle(d *device, t *terminal, name string) error {
	open, _, err := c.held(d, t)
	if err != nil || open != name {
		return err
	}
	if err := t.tell(d.platform.Save...); err != nil {
		return fmt.Errorf("keep the change over a restart: %w", err)
	}
	return t.tell(c.drop)
}

// undo types the commands that bring back what was there.
func (c claim) undo(d *device, t *terminal, w ethernet.Write) (bool, error) {
	open, _, err := c.held(d, t)
	if err != nil || open != w.Name {
		return false, err
	}
	_, st, err := d.read(t)
	if err != nil {
		return false, err
	}
	if err := c.typeIn(d, t, st, w.Changes); err != nil {
		return false, err
	}
	return true, t.tell(c.drop)
}
