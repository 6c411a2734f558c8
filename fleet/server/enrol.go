package server

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/fleet/api"
)

// enrolLimit is how long reading a BMC may take at enrolment: some answer in seconds per request.
const enrolLimit = 2 * time.Minute

type createNodeIn struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"255" doc:"the same key gets the same answer for 24 hours"`
	Body           api.NodeCreate
}

type createNodeOut struct {
	ETag     string `header:"ETag"`
	Location string `header:"Location"`
	Body     api.NodeCreated
}

func (s *Server) createNode(ctx context.Context, in *createNodeIn) (*createNodeOut, error) {
	req := in.Body
	address, err := s.checkCreate(ctx, &req)
	if err != nil {
		return nil, err
	}
	n := fleet.Node{
		ID: fleet.NodeID(uuid.Must(uuid.NewV7()).String()), Name: req.Name, Class: req.Class, Labels: req.Labels,
		BMC: fleet.BMC{Address: address, User: req.User, TLS: req.TLS}, Expect: req.Expect, BootNetwork: req.BootNetwork, RootDisk: req.RootDisk,
		Ports: req.Ports, AllowReboot: req.AllowReboot, DebugShell: req.DebugShell, Simulated: req.Simulated,
		State: fleet.Enrolled, Dirty: fleet.DirtyUnknown, CreatedAt: s.Now().UTC(),
	}
	n.StateSince = n.CreatedAt
	if err := s.unclaimed(ctx, &n); err != nil {
		return nil, err
	}
	look, cancel := context.WithTimeout(ctx, enrolLimit)
	defer cancel()
	learned, err := s.Enroller.Enroll(look, n.BMC, fleet.NewSecret(req.Password))
	if err != nil {
		return nil, fmt.Errorf("enrol %s: %w", req.Name, err)
	}
	learned.BMC.Address, learned.BMC.User = n.BMC.Address, n.BMC.User
	n.BMC = learned.BMC
	if n.BMC.UUID == "" {
		n.BMC.UUID = learned.System.UUID
	}
	if n.BMC.Serial == "" {
		n.BMC.Serial = learned.System.Serial
	}
	if err := expected(&n); err != nil {
		return nil, err
	}
	ca := n.BMC.TLS.CAPEM
	if ca != "" {
		n.BMC.TLS.CA, n.BMC.TLS.CAPEM = hashToken(ca), ""
	}
	if err := fits(&n); err != nil {
		return nil, err
	}
	if err := s.commitNode(ctx, &n, fleet.NewSecret(req.Password), ca); err != nil {
		return nil, err
	}
	s.Log.Info("node enrolled", fleet.LogNode, n.Name, "bmc", n.BMC.Address)
	v, err := s.readNode(ctx, string(n.ID))
	if err != nil {
		return nil, err
	}
	return &createNodeOut{ETag: api.ETag(v.Revision), Location: api.Base + "/nodes/" + string(n.ID), Body: api.NodeCreated{Node: v, Notes: learned.Notes}}, nil
}

var portRoles = []string{"provisioning", "tenant", "fabric"}

// checkCreate lists everything that is wrong with a request, and returns the BMC's address in the form that is claimed.
func (s *Server) checkCreate(ctx context.Context, req *api.NodeCreate) (string, error) {
	var f faultList
	f.check(fleet.ValidName(req.Name) && !looksLikeID.MatchString(req.Name), "name", "must be 1 to 63 of a-z, 0-9, . _ -, begin and end with a letter or digit, and not look like an id")
	f.check(req.User != "", "bmc_user", "is missing")
	f.check(req.Password != "", "bmc_password", "is missing")
	checkTLS(&f, req.TLS)
	checkLabels(&f, req.Labels)
	f.fields = append(f.fields, req.BootNetwork.Validate("boot_network")...)
	for i, p := range req.Ports {
		at := fmt.Sprintf("ports[%d]", i)
		f.check((p.MAC == "") != (p.GUID == ""), at, "needs either mac or guid")
		f.check(slices.Contains(portRoles, p.Role), at+".role", "is none of "+strings.Join(portRoles, ", "))
		if p.MAC != "" {
			hw, err := net.ParseMAC(string(p.MAC))
			f.check(err == nil && len(hw) == 6, at+".mac", "is no MAC address")
			req.Ports[i].MAC = fleet.MAC(hw.String())
		}
		if p.GUID != "" {
			n, err := strconv.ParseUint(strings.TrimPrefix(string(p.GUID), "0x"), 16, 64)
			f.check(err == nil && strings.HasPrefix(string(p.GUID), "0x"), at+".guid", "is no port GUID such as 0x5000000000000101")
			req.Ports[i].GUID = fleet.GUID(fmt.Sprintf("0x%016x", n))
		}
	}
	if req.Class != "" {
		err := s.Store.View(ctx, func(sn fleet.Snapshot) error {
			_, err := sn.Get(fleet.KeyOf(fleet.KindClass, req.Class))
			return err
		})
		if err != nil && fleet.KindOf(err) != fleet.NotFound {
			return "", err
		}
		f.check(err == nil, "class", fmt.Sprintf("there is no class %q; metalctl class list shows those that there are", shortened(req.Class)))
	}
	address, addressErr := bmcAddress(req.Address)
	if addressErr != nil {
		f.check(false, "bmc_address", addressErr.Error())
	}
	if err := f.err("the node " + strconv.Quote(shortened(req.Name))); err != nil {
		if len(f.fields) == 1 && addressErr != nil {
			return "", badAddress(req.Address, addressErr)
		}
		return "", err
	}
	return address, s.reachableFrom(address)
}

// checkTLS wants one way of trust.
func checkTLS(f *faultList, t fleet.BMCTLS) {
	ways := 0
	for _, given := range []bool{t.CAPEM != "", t.Pin != "", t.FirstUse} {
		if given {
			ways++
		}
	}
	f.check(ways == 1, "bmc_tls", "needs exactly one of ca_pem, pin, first_use")
	f.check(t.Pin == "" || fleet.ValidKeyPin(t.Pin), "bmc_tls.pin", "is not sha256/ and a hash in base64")
}

func badAddress(text string, why error) error {
	return fleet.Errorf(fleet.Invalid, "MC-BMC-SCHEME", "the BMC's address %q %w", shortened(fleet.WithoutUser(text)), why).WithHint("write it as https://HOST or https://HOST:PORT")
}

type addressError string

func (e addressError) Error() string { return string(e) }

// bmcAddress brings an address into the one form that is claimed: lower case, no path, no port where it is https's own.
func bmcAddress(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return "", addressError("is not an https URL")
	case strings.ContainsAny(u.Hostname(), "% "):
		return "", addressError("has a zone, which only holds on one machine")
	case u.User != nil:
		return "", addressError("holds a user; give it in bmc_user")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", addressError("has a path; only host and port are wanted")
	}
	host := strings.ToLower(u.Hostname())
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String()
	}
	if p := u.Port(); p != "" && p != "443" {
		return "https://" + net.JoinHostPort(host, p), nil
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return "https://" + host, nil
}

// reachableFrom refuses a BMC that could not fetch anything from this server: one elsewhere, while the server advertises its loopback.
func (s *Server) reachableFrom(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("parse %s: %w", address, err)
	}
	if isLoopback(s.advertise.Hostname()) && !isLoopback(u.Hostname()) {
		return fleet.Errorf(fleet.Refused, "MC-SERVER-ADVERTISE", "the BMC at %s could not fetch a boot medium: this server advertises %s, which only this machine reaches", u.Host, s.URL()).
			WithHint("start the server with --listen ADDRESS:8443, and advertise: https://NAME:8443 where BMCs see it under another name")
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// notUnique are UUIDs that vendors leave in many machines.
var notUnique = []string{"", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "03000200-0400-0500-0006-000700080009"}

// uniqueUUID is the system's UUID where it tells machines apart, else "".
func uniqueUUID(n fleet.Node) string {
	u := strings.ToLower(n.BMC.UUID)
	if slices.Contains(notUnique, u) {
		return ""
	}
	return u
}

// claims are what the node claims for itself alone.
func claims(n *fleet.Node) []fleet.Key {
	out := slices.Sorted(mapKeys(identities(n)))
	for _, w := range n.Wires() {
		out = append(out, claimWire(w))
	}
	return out
}

// identities are the claims that tell machines apart, and how people call them.
func identities(n *fleet.Node) map[fleet.Key]string {
	out := map[fleet.Key]string{claimName(n.Name): "name " + n.Name, claimAddress(n.BMC.Address): "BMC address " + n.BMC.Address}
	if u := uniqueUUID(*n); u != "" {
		out[claimUUID(u)] = "system UUID " + u
	}
	return out
}

// unclaimed refuses a node whose claims belong to another one already, and names that.
func (s *Server) unclaimed(ctx context.Context, n *fleet.Node) error {
	return s.Store.View(ctx, func(sn fleet.Snapshot) error {
		for _, key := range slices.Sorted(mapKeys(identities(n))) {
			id, _, err := fleet.Get[fleet.NodeID](sn, key)
			if err != nil {
				if fleet.KindOf(err) == fleet.NotFound {
					continue
				}
				return err
			}
			if id == n.ID {
				continue
			}
			name := string(id)
			if other, _, err := fleet.Get[fleet.Node](sn, fleet.KeyOf(fleet.KindNode, id)); err == nil {
				name = other.Name
			}
			return fleet.Errorf(fleet.Conflict, "MC-NODE-TWICE", "the %s belongs to the node %s already", identities(n)[key], name).WithHint("metalctl node show %s", name)
		}
		return fleet.Alone(sn, *n)
	})
}

func mapKeys[V any](m map[fleet.Key]V) func(func(fleet.Key) bool) {
	return func(yield func(fleet.Key) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// commitNode stores the node, its claims and its secret in one commit: two enrolments of one machine cannot both succeed.
func (s *Server) commitNode(ctx context.Context, n *fleet.Node, password fleet.Secret, ca string) error {
	key := fleet.KeyOf(fleet.KindNode, n.ID)
	c := fleet.Change{If: []fleet.Precondition{{Key: key}}, Writes: []fleet.Write{{Key: key, Value: n}, {Key: bmcSecretKey(n.ID), Value: password}}}
	for _, k := range claims(n) {
		c.If = append(c.If, fleet.Precondition{Key: k})
		c.Writes = append(c.Writes, fleet.Write{Key: k, Value: n.ID})
	}
	if ca != "" {
		c.Writes = append(c.Writes, fleet.Write{Key: fleet.KeyOf(fleet.KindCA, n.BMC.TLS.CA), Value: ca})
	}
	c.Events = []fleet.Event{nodeEvent(n, "node.enrolled", s.Now(), "enrolled by "+callerOf(ctx)+", BMC "+n.BMC.Address)}
	_, err := s.Store.Commit(ctx, c)
	if fleet.CodeOf(err) == "MC-STORE-STALE" {
		if twice := s.unclaimed(ctx, n); twice != nil {
			return twice
		}
	}
	return err
}

// expected refuses another machine than the one that was meant.
func expected(n *fleet.Node) error {
	e := fleet.Errorf(fleet.Refused, "MC-NODE-IDENTITY", "the machine behind %s is not the one that was meant", n.BMC.Address).
		WithHint("check the address, or the expected serial and UUID")
	for _, c := range []struct{ field, got, want string }{{"expect.serial", n.BMC.Serial, n.Expect.Serial}, {"expect.uuid", n.BMC.UUID, n.Expect.UUID}} {
		if c.want != "" && !strings.EqualFold(c.got, c.want) {
			e.Fields = append(e.Fields, fleet.FieldError{Field: c.field, Message: fmt.Sprintf("is %q at the BMC, expected %q", c.got, c.want)})
		}
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}
