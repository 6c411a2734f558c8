// Package ssh reaches a switch by SSH: its host key is pinned, and every call has a deadline.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/metalctl/metalctl/fleet"
)

// Host is a switch to speak to.
type Host struct {
	// Address is host:port.
	Address string
	User    string
	// Password is also what is typed where the switch asks for it by keyboard-interactive.
	Password fleet.Secret
	// HostKey is the only one that is taken, as a line of known_hosts has it: type and base64.
	HostKey string
}

// ParseHostKey reads a host key as a line of known_hosts has it, without the host.
func ParseHostKey(s string) (ssh.PublicKey, error) {
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 || strings.Contains(strings.TrimSpace(s), "\n") {
		return nil, fleet.Errorf(fleet.Invalid, "MC-SWITCH-HOST-KEY", "%q is no SSH host key: want its type and base64, as in a line of known_hosts", shortened(s)).
			WithHint("ssh-keyscan -t ed25519 ADDRESS, and compare it with what the switch's console shows")
	}
	return key, nil
}

func shortened(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// Stream is one session on a switch. Close ends its connection, too.
type Stream struct {
	io.Reader
	io.Writer
	conn    net.Conn
	client  *ssh.Client
	unwatch func() bool
}

// Within bounds what is waited for from now on. When it is over the connection is lost.
func (s *Stream) Within(d time.Duration) error { return s.conn.SetDeadline(time.Now().Add(d)) }

// Close ends the connection.
func (s *Stream) Close() error {
	s.unwatch()
	err := s.client.Close()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Shell opens a terminal of the switch's own command line, wide enough that no line is folded.
func (h Host) Shell(ctx context.Context) (*Stream, error) {
	return h.open(ctx, func(s *ssh.Session) error {
		if err := s.RequestPty("vt100", 0, 511, ssh.TerminalModes{ssh.ECHO: 1}); err != nil {
			return err
		}
		return s.Shell()
	})
}

// Subsystem opens a subsystem, such as netconf.
func (h Host) Subsystem(ctx context.Context, name string) (*Stream, error) {
	return h.open(ctx, func(s *ssh.Session) error { return s.RequestSubsystem(name) })
}

// open dials, and closes the connection when ctx ends: reads and writes of the stream end by that.
func (h Host) open(ctx context.Context, start func(*ssh.Session) error) (*Stream, error) {
	key, err := ParseHostKey(h.HostKey)
	if err != nil {
		return nil, err
	}
	// The one dialer's timeout bounds a switch that is off; that of ctx bounds the rest.
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", h.Address)
	if err != nil {
		return nil, h.away(err)
	}
	unwatch := context.AfterFunc(ctx, func() { _ = conn.Close() }) // whoever reads sees it
	st, err := h.converse(conn, key, start)
	if err != nil {
		unwatch()
		return nil, errors.Join(err, closed(conn))
	}
	st.unwatch = unwatch
	return st, nil
}

func closed(c net.Conn) error {
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (h Host) converse(conn net.Conn, key ssh.PublicKey, start func(*ssh.Session) error) (*Stream, error) {
	var stranger ssh.PublicKey
	password := h.Password.Reveal()
	config := &ssh.ClientConfig{
		User: h.User,
		Auth: []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range answers {
				answers[i] = password
			}
			return answers, nil
		})},
		HostKeyAlgorithms: algorithms(key),
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			err := ssh.FixedHostKey(key)("", nil, k)
			if err != nil {
				stranger = k
			}
			return err
		},
	}
	c, channels, requests, err := ssh.NewClientConn(conn, h.Address, config)
	switch {
	case stranger != nil:
		return nil, fleet.Errorf(fleet.Refused, "MC-SWITCH-HOST-KEY", "the switch at %s shows the host key %s, which is not the one that is configured", h.Address, ssh.FingerprintSHA256(stranger)).
			WithHint("find out whether the switch was exchanged; if so, host_key in the server's configuration is its new key")
	case err != nil && strings.Contains(err.Error(), "unable to authenticate"):
		return nil, fleet.Errorf(fleet.Denied, "MC-SWITCH-LOGIN", "the switch at %s does not let %s in", h.Address, h.User).WithHint("look at user and password_file in the server's configuration")
	case err != nil:
		return nil, h.away(err)
	}
	client := ssh.NewClient(c, channels, requests)
	session, err := client.NewSession()
	if err != nil {
		return nil, h.away(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		return nil, h.away(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, h.away(err)
	}
	if err := start(session); err != nil {
		return nil, h.away(err)
	}
	return &Stream{Reader: out, Writer: in, conn: conn, client: client}, nil
}

// algorithms are those that a key of that type signs with; an RSA key does not by SHA-1.
func algorithms(k ssh.PublicKey) []string {
	if k.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{k.Type()}
}

func (h Host) away(err error) error { return Lost(h.Address, err) }

// Lost is the error of a connection that ended or never began. What was asked may have been done.
func Lost(address string, err error) error {
	return fleet.Errorf(fleet.Unavailable, "MC-SWITCH-SILENT", "the switch at %s does not answer: %w", address, err).WithHint("look whether the server's machine reaches %s", address)
}

// IsLost reports whether err is that a connection ended, so that it is worth another one.
func IsLost(err error) bool { return fleet.CodeOf(err) == "MC-SWITCH-SILENT" }

const (
	// enough bounds all tries, tries is how many there are.
	enough = 2 * time.Minute
	tries  = 5
)

// Again does something over a connection that once makes, and does it anew where that was lost: once must bear being interrupted anywhere.
func Again(ctx context.Context, once func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, enough)
	defer cancel()
	for try := 1; ; try++ {
		if err := once(ctx); !IsLost(err) || try == tries || ctx.Err() != nil {
			return err
		}
	}
}

// Check lists what is missing to reach h.
func (h Host) Check() error {
	if _, _, err := net.SplitHostPort(h.Address); err != nil {
		return fmt.Errorf("address %q is no host:port", h.Address)
	}
	if h.User == "" {
		return errors.New("user is missing")
	}
	_, err := ParseHostKey(h.HostKey)
	return err
}
