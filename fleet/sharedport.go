package fleet

import "slices"

// SharedPort is a port of a node that another one names, too.
type SharedPort struct {
	Wire Wire
	With Node
}

// Same reports whether both are one port. A GUID is one port's, whichever fabric it is said to be in.
func (w Wire) Same(x Wire) bool {
	return w.Fabric == x.Fabric && w.Port == x.Port && (w.Fabric || w.Device == x.Device)
}

// SharedPorts are the ports of the node that others name as theirs, in order of those nodes' ids. What is done to such a port is done to two nodes.
func SharedPorts(s Snapshot, n Node) ([]SharedPort, error) {
	mine := n.Wires()
	if len(mine) == 0 {
		return nil, nil
	}
	var keys []Key
	if err := s.Revisions(KindNode, func(k Key, _ Revision) bool { keys = append(keys, k); return true }); err != nil {
		return nil, err
	}
	var out []SharedPort
	for _, key := range keys {
		if key == KeyOf(KindNode, n.ID) {
			continue
		}
		other, err := lookAt[Node](s, key)
		if err != nil {
			return nil, err
		}
		for _, p := range other.Ports {
			x, named := p.wire()
			if !named {
				continue
			}
			if i := slices.IndexFunc(mine, x.Same); i >= 0 {
				out = append(out, SharedPort{mine[i], *other})
			}
		}
	}
	return out, nil
}

// lookAt returns a record that is only looked at.
func lookAt[T any](s Snapshot, key Key) (*T, error) {
	k, ok, err := Peek[T](s, key)
	if err != nil {
		return nil, err
	}
	if ok {
		return any(k.Value).(*T), nil
	}
	v, _, err := Get[T](s, key)
	return &v, err
}

// Alone is an error where another node names one of the node's ports as its own.
func Alone(s Snapshot, n Node) error {
	shared, err := SharedPorts(s, n)
	if err != nil || len(shared) == 0 {
		return err
	}
	return shared[0].Err(n.Name)
}

// Err says that the port is that node's and the other one's.
func (p SharedPort) Err(node string) error {
	return Errorf(Conflict, "MC-NET-PORT", "port %s of %s is named by %s and by %s", p.Wire.Port, p.Wire.Device, node, p.With.Name).WithHint("metalctl node show %s", p.With.Name)
}
