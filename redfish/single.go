package redfish

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"
)

// maxHeader is the most bytes of an answer's header.
const maxHeader = 64 << 10

// maxInterim is how many answers of the kind "go on" may come before the one that counts.
const maxInterim = 5

// single makes a connection for one exchange, as BMCs drop connections that are used again. There is nothing to keep then: net/http's transport would run two
// goroutines beside each exchange, and hold a pool for each of ten thousand BMCs.
type single struct {
	address, name string
	trust         *verifier
}

// do sends req and returns the answer as soon as its header is there. Closing its body ends the connection, and so does the end of req's context.
func (s *single) do(req *http.Request) (_ *http.Response, err error) {
	ctx := req.Context()
	dialer := net.Dialer{Timeout: connectTimeout, KeepAlive: -1} // each exchange has a limit of its own
	raw, err := dialer.DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.trust.config(s.name))
	x := &exchanged{conn: conn, over: ctx.Err, from: io.LimitedReader{R: conn, N: maxHeader}}
	x.stop = context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if err != nil {
			err = x.ended(err)
			x.Close()
		}
	}()
	if err := raw.SetDeadline(time.Now().Add(connectTimeout)); err != nil {
		return nil, err
	}
	if err := conn.Handshake(); err != nil {
		var record tls.RecordHeaderError
		if errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/" {
			return nil, http.ErrSchemeMismatch
		}
		return nil, err
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	req.Close = true
	var out bytes.Buffer
	if err := req.Write(&out); err != nil {
		return nil, err
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		return nil, err
	}
	in := bufio.NewReader(&x.from)
	for range maxInterim {
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			if x.from.N <= 0 {
				err = fmt.Errorf("the header of the answer is longer than %d bytes", maxHeader)
			}
			return nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			x.from.N = math.MaxInt64 // who reads the body limits it
			x.body, resp.Body = resp.Body, x
			return resp, nil
		}
	}
	return nil, fmt.Errorf("more than %d answers of the kind 1xx", maxInterim)
}

// exchanged is the body of an answer.
type exchanged struct {
	conn *tls.Conn
	from io.LimitedReader
	stop func() bool
	over func() error
	body io.Reader
}

// ended says why a connection failed that was closed because the time was over.
func (x *exchanged) ended(err error) error {
	if over := x.over(); over != nil {
		return over
	}
	return err
}

func (x *exchanged) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	if err != nil && err != io.EOF {
		err = x.ended(err)
	}
	return n, err
}

// Close tells the BMC that nothing follows and ends the connection.
func (x *exchanged) Close() error {
	x.stop()
	return x.conn.Close()
}
