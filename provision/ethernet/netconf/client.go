package netconf

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
	"github.com/metalctl/metalctl/provision/ethernet/ssh"
)

const baseNS = "urn:ietf:params:xml:ns:netconf:base:1.0"

// Capabilities, by RFC 6241.
const (
	base10    = "urn:ietf:params:netconf:base:1.0"
	base11    = "urn:ietf:params:netconf:base:1.1"
	candidate = "urn:ietf:params:netconf:capability:candidate:1.0"
	confirmed = "urn:ietf:params:netconf:capability:confirmed-commit:1.1"
	validate  = "urn:ietf:params:netconf:capability:validate:1."
	startup   = "urn:ietf:params:netconf:capability:startup:1.0"
)

// client is one session.
type client struct {
	stream   *ssh.Stream
	address  string
	patience time.Duration
	in       *bufio.Reader
	chunked  bool
	startup  bool
	id       int
	locks    []string
}

// connect opens a session and looks whether the switch can do what a change needs.
func connect(ctx context.Context, host ssh.Host, patience time.Duration) (*client, error) {
	stream, err := host.Subsystem(ctx, "netconf")
	if err != nil {
		return nil, err
	}
	c := &client{stream: stream, address: host.Address, patience: patience, in: bufio.NewReaderSize(stream, 64<<10)}
	if err := c.hello(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *client) close() error { return c.stream.Close() }

func (c *client) hello() error {
	if err := c.stream.Within(c.patience); err != nil {
		return ssh.Lost(c.address, err)
	}
	_, err := fmt.Fprintf(c.stream, `<?xml version="1.0" encoding="UTF-8"?><hello xmlns="%s"><capabilities><capability>%s</capability><capability>%s</capability></capabilities></hello>%s`,
		baseNS, base10, base11, endOfMessage)
	if err != nil {
		return ssh.Lost(c.address, err)
	}
	msg, err := readEnded(c.in)
	if err != nil {
		return c.broke(err)
	}
	has, err := parseHello(msg)
	if err != nil {
		return c.strange("hello", err)
	}
	var lacks []string
	for _, need := range []string{candidate, confirmed, validate} {
		if !slices.ContainsFunc(has, func(h string) bool { return strings.HasPrefix(h, need) }) {
			lacks = append(lacks, strings.TrimPrefix(need, "urn:ietf:params:netconf:capability"))
		}
	}
	if len(lacks) > 0 {
		return fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the switch at %s cannot change ports safely by NETCONF: it lacks %s", c.address, strings.Join(lacks, " and ")).
			WithHint("switch it on there, or use the driver cli")
	}
	c.chunked, c.startup = slices.Contains(has, base11), slices.Contains(has, startup)
	return nil
}

func parseHello(msg []byte) ([]string, error) {
	var h struct {
		XMLName xml.Name `xml:"urn:ietf:params:xml:ns:netconf:base:1.0 hello"`
		Has     []string `xml:"capabilities>capability"`
	}
	if err := xml.Unmarshal(msg, &h); err != nil {
		return nil, err
	}
	for i := range h.Has {
		h.Has[i] = strings.TrimSpace(h.Has[i])
	}
	if !slices.Contains(h.Has, base10) && !slices.Contains(h.Has, base11) {
		return nil, errors.New("it speaks no NETCONF that is known")
	}
	return h.Has, nil
}

// reply is the answer to a call.
type reply struct {
	XMLName xml.Name   `xml:"urn:ietf:params:xml:ns:netconf:base:1.0 rpc-reply"`
	ID      string     `xml:"message-id,attr"`
	OK      *struct{}  `xml:"ok"`
	Errors  []rpcError `xml:"rpc-error"`
	Data    *data      `xml:"data"`
}

type rpcError struct {
	Tag      string `xml:"error-tag"`
	Severity string `xml:"error-severity"`
	Message  string `xml:"error-message"`
}

func (e rpcError) Error() string { return fmt.Sprintf("%s: %q", e.Tag, strings.TrimSpace(e.Message)) }

// call sends an operation and returns its data. What the switch refuses is an error that is an rpcError. Answers to others are skipped.
func (c *client) call(operation string) (*data, error) {
	if err := c.stream.Within(c.patience); err != nil {
		return nil, ssh.Lost(c.address, err)
	}
	c.id++
	id := strconv.Itoa(c.id)
	msg := fmt.Sprintf(`<rpc xmlns="%s" message-id="%s">%s</rpc>`, baseNS, id, operation)
	if c.chunked {
		msg = fmt.Sprintf("\n#%d\n%s\n##\n", len(msg), msg)
	} else {
		msg += endOfMessage
	}
	if _, err := c.stream.Write([]byte(msg)); err != nil {
		return nil, ssh.Lost(c.address, err)
	}
	for {
		read := readEnded
		if c.chunked {
			read = readChunked
		}
		b, err := read(c.in)
		if err != nil {
			return nil, c.broke(err)
		}
		r, err := parseReply(b)
		if err != nil {
			return nil, c.strange(name(operation), err)
		}
		if r.ID != id {
			continue
		}
		for _, e := range r.Errors {
			if e.Severity != "warning" {
				refusal := fleet.Errorf(fleet.Refused, "MC-SWITCH-COMMAND", "the switch at %s refuses %s: %w", c.address, name(operation), e)
				return nil, refusal.WithHint("docs/operate/switches.md says what the account must be allowed")
			}
		}
		return r.Data, nil
	}
}

func parseReply(b []byte) (*reply, error) {
	var r reply
	d := xml.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if r.OK == nil && r.Data == nil && len(r.Errors) == 0 {
		return nil, errors.New("an answer is neither ok nor data nor an error")
	}
	return &r, nil
}

// lock locks a datastore for this session.
func (c *client) lock(store string) error {
	if slices.Contains(c.locks, store) {
		return nil
	}
	_, err := c.call("<lock><target><" + store + "/></target></lock>")
	if err == nil {
		c.locks = append(c.locks, store)
	}
	return err
}

// unlock gives all locks back; what is left of it the end of the session does.
func (c *client) unlock() error {
	for _, store := range c.locks {
		if _, err := c.call("<unlock><target><" + store + "/></target></unlock>"); err != nil && !ssh.IsLost(err) {
			return err
		}
	}
	c.locks = nil
	return nil
}

// name is an operation's first word.
func name(operation string) string {
	return strings.TrimLeft(operation[:strings.IndexAny(operation, " />")], "<")
}

// refusedAs reports whether err is that the switch refused with that tag.
func refusedAs(err error, tag string) bool {
	var e rpcError
	return errors.As(err, &e) && e.Tag == tag
}

func (c *client) broke(err error) error {
	if errors.Is(err, errTooLong) {
		return c.strange("a call", err)
	}
	return ssh.Lost(c.address, err)
}

func (c *client) strange(what string, err error) error {
	return fleet.Errorf(fleet.Broken, "MC-SWITCH-ANSWER", "the switch at %s answers what is not understood to %s: %w", c.address, what, err).WithHint("metalctl help MC-SWITCH-ANSWER")
}
