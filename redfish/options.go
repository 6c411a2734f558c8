// Package redfish speaks Redfish to one BMC: power, boot source, virtual media and identity.
package redfish

import (
	"context"
	"log/slog"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// TrustMode says how a BMC's certificate is judged. There is no mode that judges nothing.
type TrustMode uint8

const (
	// TrustCA verifies the chain and the name against Trust.CAPEM, or the system's roots where that is empty.
	TrustCA TrustMode = iota
	// TrustPin accepts exactly the key whose hash is Trust.Pin.
	TrustPin
	// TrustFirstUse accepts the first key seen and holds to it while this BMC is open; record Identity.Pin and use TrustPin
	// from then on. With a Pin it is TrustPin.
	TrustFirstUse
)

// Trust is how the BMC proves who it is.
type Trust struct {
	Mode TrustMode
	// CAPEM holds certificates for TrustCA.
	CAPEM []byte
	// Pin is "sha256/" and the base64 form of the SHA-256 of the certificate's SubjectPublicKeyInfo.
	Pin string
}

// Credentials is one account of a BMC; the password prints as ***.
type Credentials struct {
	User     string
	Password fleet.Secret
}

// AuthMode is how a BMC takes credentials; learned at first contact, then recorded with the node.
type AuthMode uint8

const (
	// AuthUnknown: try a session; basic only where there is no session service or it answers 404, 405 or 501.
	AuthUnknown AuthMode = iota
	AuthSession
	AuthBasic
)

func (m AuthMode) String() string {
	switch m {
	case AuthSession:
		return "session"
	case AuthBasic:
		return "basic"
	}
	return "unknown"
}

// ParseAuthMode reads what AuthMode.String wrote; anything else is AuthUnknown.
func ParseAuthMode(s string) AuthMode {
	switch s {
	case "session":
		return AuthSession
	case "basic":
		return AuthBasic
	}
	return AuthUnknown
}

// SavedSession is a session as kept across a restart, so that a crash leaves none behind.
type SavedSession struct {
	// URI is the session's own address; empty where there is no session (basic authentication).
	URI string
	// Token is its X-Auth-Token; with a token the session is adopted, without one it is deleted after login.
	Token fleet.Secret
}

// Options says how to open a BMC; the zero value of each field is its default.
type Options struct {
	Trust
	Credentials
	// Auth is what enrolment learned.
	Auth AuthMode
	// System is the recorded URI of the host system; needed only where a BMC serves several.
	System string
	// Quirk is the recorded name of the profile in redfish/quirk; empty: recognise.
	Quirk string
	// Learned is what a former InsertMedia found out (BMC.Learned).
	Learned Learned
	// ReadOnce: a resource is read once and remembered. For an object that looks around for a moment, as enrolment does; one that writes is refused.
	ReadOnce bool
	// Ours are the beginnings of the URLs that this program serves images at; EjectMedia knows its own by them.
	Ours []string
	// Session is to adopt or delete.
	Session SavedSession
	// OnSession is told of each new session (and of its end with a zero value) before the session is used, so that it can be
	// recorded; may be nil. It must not call the BMC.
	OnSession func(SavedSession)
	// Breaker is shared by all that use this BMC in this process (Breakers.For); nil makes one of its own.
	Breaker *Breaker
	Log     *slog.Logger
	// Node is the name of the BMC's node, for the log; it may be empty.
	Node string
	// Now and Sleep are the clock; nil means the real one. Sleep returns early with the context's error.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
	// Before is asked immediately before each request that would change something; where it returns an error, nothing is sent and the error is
	// the call's. Sessions are exempt: without one nothing can be read. May be nil; called from several goroutines.
	Before func(context.Context) error
	// After is called when a request that Before let pass is over, whatever became of it; may be nil.
	After func()
	// Trace is told of each call, redacted, for the node's timeline; may be nil; called from several goroutines.
	Trace func(Call)
	// Bodies gives Trace the bodies, too; each is read and written anew to redact it, which costs more than the rest of a call.
	Bodies bool
}

// Call is one exchange with a BMC, without any secret.
type Call struct {
	Start    time.Time
	Duration time.Duration
	Method   string
	URI      string
	// Status is 0 where no answer came; Err then says why.
	Status int
	// Request and Response are the bodies, redacted and cut at 4 KiB; empty without Options.Bodies.
	Request, Response string
	BytesIn           int
	Err               string
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
