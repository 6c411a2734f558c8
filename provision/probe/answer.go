package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

const (
	// pace is the time between two bursts.
	pace = 150 * time.Millisecond
	// lonely is how many bursts are sent where nobody can be heard.
	lonely = 10
	// maxPorts is what the acknowledgement of a frame has room for.
	maxPorts = 64
	// MaxInterfaces is how many of a canary one domain may have.
	MaxInterfaces = 16
	// minKey is the fewest bytes of a round's key.
	minKey = 16
)

// Answer does an agent's half of a round: it sends and listens at each port of the task until the canary has heard enough and was heard enough, or the task's
// time is over. raise brings interfaces up that are down, and returns what takes them down again; nil: nobody does.
func Answer(ctx context.Context, t fleet.ProbeTask, raise func(ctx context.Context, names []string) (restore func())) (fleet.ProbeReport, error) {
	id, err := checkTask(t)
	if err != nil {
		return fleet.ProbeReport{}, fleet.Errorf(fleet.Invalid, "MC-PROBE-TASK", "the task of this round of packets: %w", err)
	}
	names, err := linkNames(t.Ports)
	if err != nil {
		return fleet.ProbeReport{}, err
	}
	if raise != nil {
		defer raise(ctx, slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" }))()
	}
	a := &answer{round: id, key: t.Key, canaries: t.Canaries, changed: make(chan struct{}, 1)}
	var readers sync.WaitGroup
	for i, p := range t.Ports {
		m := &mouth{number: uint16(i), port: p, ears: ears{}}
		a.mouths = append(a.mouths, m)
		if names[i] == "" {
			m.problem = fmt.Sprintf("the machine has no network card %s", p.MACs)
			continue
		}
		m.name = names[i]
		if m.link, err = openLink(names[i]); err != nil {
			m.problem = err.Error()
			continue
		}
		readers.Go(func() { a.listen(m) })
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(t.Seconds)*time.Second)
	defer cancel()
	a.speak(ctx)
	report := fleet.ProbeReport{Round: t.Round}
	for _, m := range a.mouths {
		if m.link == nil {
			continue
		}
		if ifi, err := net.InterfaceByIndex(m.link.index); err == nil {
			m.carrier = ifi.Flags&net.FlagRunning != 0
		}
		closeLinks([]*link{m.link})
	}
	readers.Wait()
	for _, m := range a.mouths {
		report.Ports = append(report.Ports, fleet.ProbeEars{Link: m.name, Carrier: m.carrier, Bursts: m.bursts, Heard: m.ears.list(), Problem: m.problem})
	}
	return report, nil
}

// answer is an agent in one round.
type answer struct {
	round    roundID
	key      []byte
	canaries int
	mouths   []*mouth
	changed  chan struct{} // has room for one: a port may have become satisfied

	mu sync.Mutex // guards ears, acked and problem of the mouths
}

// mouth is one port of the node.
type mouth struct {
	number  uint16
	port    fleet.ProbePort
	name    string
	link    *link
	bursts  int
	carrier bool

	ears    ears
	acked   bool
	problem string
}

func (a *answer) listen(m *mouth) {
	for {
		tag, payload, err := m.link.next()
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				a.mu.Lock()
				m.problem = err.Error()
				a.mu.Unlock()
			}
			return
		}
		f, ok := parse(payload)
		if !ok || f.round != a.round || f.from == m.number || !verified(a.key, payload) {
			continue
		}
		a.mu.Lock()
		m.ears.hear(f, tag)
		if f.from >= fleet.CanaryPorts && f.acks&(1<<m.number) != 0 {
			m.acked = true
		}
		a.mu.Unlock()
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
}

// speak sends bursts until all is heard.
func (a *answer) speak(ctx context.Context) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for burst := uint32(1); burst < math.MaxUint32; burst++ {
		for _, m := range a.mouths {
			if m.link == nil {
				continue
			}
			var err error
			for _, tag := range m.port.Tags {
				err = errors.Join(err, m.link.send(frame{round: a.round, from: m.number, sent: tag, burst: burst}.encode(a.key, m.link.mac)))
			}
			if err == nil {
				m.bursts++
			} else if !errors.Is(err, errDown) {
				a.mu.Lock()
				m.problem = err.Error()
				a.mu.Unlock()
			}
		}
		for waiting := true; waiting; {
			if a.done(int(burst)) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-a.changed:
			case <-tick.C:
				waiting = false
			}
		}
	}
}

// done reports whether every port in a network was heard enough, and heard enough.
func (a *answer) done(burst int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	open := false
	for _, m := range a.mouths {
		if m.port.VLAN == 0 || m.problem != "" {
			continue
		}
		open = true
		for c := range a.canaries {
			if !m.acked || !m.ears.often(kind{uint16(fleet.CanaryPorts + c), fleet.FrameTag(m.port.VLAN), fleet.Untagged}) {
				return false
			}
		}
	}
	return open || burst >= lonely
}

func checkTask(t fleet.ProbeTask) (roundID, error) {
	id, err := parseRound(t.Round)
	switch {
	case err != nil:
		return id, err
	case len(t.Key) < minKey:
		return id, fmt.Errorf("its key has %d bytes", len(t.Key))
	case len(t.Ports) == 0 || len(t.Ports) > maxPorts:
		return id, fmt.Errorf("it has %d ports", len(t.Ports))
	case t.Canaries < 1 || t.Canaries > MaxInterfaces:
		return id, fmt.Errorf("it has %d canaries", t.Canaries)
	case t.Seconds < 1 || t.Seconds > 600:
		return id, fmt.Errorf("it lasts %d seconds", t.Seconds)
	}
	for i, p := range t.Ports {
		for _, tag := range p.Tags {
			if tag < fleet.Untagged || tag > 4094 {
				return id, fmt.Errorf("port %d: there is no tag %d", i, tag)
			}
		}
		if len(p.Tags) > 4096 {
			return id, fmt.Errorf("port %d has %d tags", i, len(p.Tags))
		}
	}
	return id, nil
}

// linkNames finds the interface of each port, "" where there is none. Where several have one address it is the bond that they are in.
func linkNames(ports []fleet.ProbePort) ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	out := make([]string, len(ports))
	for i, p := range ports {
		for _, ifi := range all {
			if !slices.ContainsFunc(p.MACs, func(m fleet.MAC) bool { return strings.EqualFold(string(m), ifi.HardwareAddr.String()) }) {
				continue
			}
			_, err := os.Stat(filepath.Join("/sys/class/net", ifi.Name, "bonding"))
			if out[i] == "" || err == nil {
				out[i] = ifi.Name
			}
		}
	}
	return out, nil
}
