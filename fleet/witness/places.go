package witness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// limit bounds one exchange with a place on the network.
const limit = 30 * time.Second

// file is a log in a file, opened anew for each batch, so that it may be rotated.
type file string

func (f file) String() string { return string(f) }

func (f file) Append(_ context.Context, lines []Line) error {
	b, err := encode(lines)
	if err != nil {
		return err
	}
	_, statErr := os.Stat(string(f))
	out, err := os.OpenFile(string(f), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the witness: %w", err)
	}
	cut, err := endsWithin(out)
	if cut {
		b = append([]byte("\n"), b...) // what a full disk or a crash cut off takes no other line with it
	}
	if err == nil {
		_, err = out.Write(b)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write the witness: %w", err)
	}
	if !errors.Is(statErr, fs.ErrNotExist) {
		return nil
	}
	dir, err := os.Open(filepath.Dir(string(f)))
	if err != nil {
		return fmt.Errorf("sync the witness: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// endsWithin reports whether a file ends within a line.
func endsWithin(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n', err
}

func (f file) Read(_ context.Context, yield func(Line)) error {
	in, err := os.Open(string(f))
	if err != nil {
		return fmt.Errorf("open the witness: %w", err)
	}
	defer in.Close()
	return parse(in, yield)
}

// syslog sends lines to a collector (RFC 5424, over TCP framed by newlines as RFC 6587 section 3.4.2 has it).
type syslog struct{ network, address string }

func (s syslog) String() string { return "syslog " + s.network + " " + s.address }

func (s syslog) Append(ctx context.Context, lines []Line) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, s.network, s.address)
	if err != nil {
		return fmt.Errorf("reach the witness: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("reach the witness: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	for _, l := range lines {
		text, err := encode([]Line{l})
		if err != nil {
			return err
		}
		// Facility local0, severity notice.
		if _, err := fmt.Fprintf(conn, "<133>1 %s %s metalctl %d witness - %s", l.At.UTC().Format(time.RFC3339), host, os.Getpid(), text); err != nil {
			return fmt.Errorf("write the witness: %w", err)
		}
	}
	return nil
}

func (s syslog) Read(context.Context, func(Line)) error { return ErrWriteOnly }

// remote is a log behind https.
type remote struct {
	url    *url.URL
	token  fleet.Secret
	client *http.Client
}

func newRemote(u *url.URL, token fleet.Secret) remote {
	// A redirect could carry the token to another host.
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return remote{u, token, &http.Client{CheckRedirect: noRedirect}}
}

func (r remote) String() string { return r.url.Scheme + "://" + r.url.Host }

func (r remote) do(ctx context.Context, method string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url.String(), body)
	if err != nil {
		return nil, fmt.Errorf("reach the witness: %w", err)
	}
	if !r.token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+r.token.Reveal())
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reach the witness: %w", err)
	}
	if res.StatusCode/100 != 2 {
		res.Body.Close() //nolint:errcheck // it is not read
		return nil, fmt.Errorf("the witness %s answers %s to %s", r, res.Status, method)
	}
	return res, nil
}

func (r remote) Append(ctx context.Context, lines []Line) error {
	b, err := encode(lines)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := r.do(ctx, http.MethodPost, bytes.NewReader(b))
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (r remote) Read(ctx context.Context, yield func(Line)) error {
	ctx, cancel := context.WithTimeout(ctx, 4*limit)
	defer cancel()
	res, err := r.do(ctx, http.MethodGet, http.NoBody)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return parse(res.Body, yield)
}
