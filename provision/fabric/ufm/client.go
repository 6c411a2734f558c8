package ufm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// API says how UFM's REST interface is reached. The HTTP client verifies who answers, and bounds each request's time.
type API struct {
	// URL is https://HOST[:PORT].
	URL string
	// Token is an access token; where it is set it is used instead of User and Password.
	Token    fleet.Secret
	User     string
	Password fleet.Secret
	HTTP     *http.Client
	// Pause is how long one waits between two looks at a job; 0 is 200 ms.
	Pause time.Duration
}

// most is the size of the largest answer that is read: 10,000 ports need about 10 MiB.
const most = 64 << 20

// asks is how often a question is asked whose answer was lost. What writes is asked once: the reading after it tells what came of it.
const asks = 3

func (a API) base() string {
	if a.Token.IsZero() {
		return strings.TrimRight(a.URL, "/") + "/ufmRest/"
	}
	return strings.TrimRight(a.URL, "/") + "/ufmRestV3/"
}

func (a API) get(ctx context.Context, path string) (b []byte, err error) {
	for range asks {
		if b, err = a.do(ctx, http.MethodGet, path, nil); err == nil || ctx.Err() != nil || fleet.KindOf(err) != fleet.Unavailable {
			break
		}
	}
	return b, err
}

// write sends a change and waits for the job that it began.
func (a API) write(ctx context.Context, method, path string, body any) error {
	b, err := a.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	job, err := decodeJob(b)
	if err != nil {
		return a.odd(path, err)
	}
	pause := a.Pause
	if pause <= 0 {
		pause = 200 * time.Millisecond
	}
	for job != "" {
		b, err := a.get(ctx, "jobs/"+job)
		if err != nil {
			return err
		}
		done, err := decodeStatus(b)
		if err != nil {
			return a.odd("jobs/"+job, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fleet.Errorf(fleet.Timeout, "MC-UFM-SILENT", "wait for UFM's job %s: %w", job, ctx.Err())
		case <-time.After(pause):
		}
	}
	return nil
}

func (a API) odd(path string, err error) error {
	return fleet.Errorf(fleet.Broken, "MC-UFM-ANSWER", "UFM's answer to %s: %w", path, err).WithHint("metalctl help MC-UFM-ANSWER")
}

func (a API) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode for UFM: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.base()+path, content)
	if err != nil {
		return nil, fmt.Errorf("ask UFM: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.Token.IsZero() {
		req.SetBasicAuth(a.User, a.Password.Reveal())
	} else {
		req.Header.Set("Authorization", "Basic "+a.Token.Reveal())
	}
	resp, err := a.HTTP.Do(req)
	if fleet.Distrusts(err) {
		return nil, fleet.Errorf(fleet.Denied, "MC-UFM-DENIED", "UFM at %s is not the one that is trusted, and was told nothing: %w", a.URL, plain(err)).WithHint("check tls in the server's configuration")
	}
	if err != nil {
		return nil, fleet.Errorf(fleet.Unavailable, "MC-UFM-SILENT", "ask UFM at %s for %s: %w", a.URL, path, plain(err)).WithHint("metalctl fabric show shows since when")
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	switch {
	case err != nil:
		return nil, fleet.Errorf(fleet.Unavailable, "MC-UFM-SILENT", "read UFM's answer to %s: %w", path, err)
	case len(b) > most:
		return nil, a.odd(path, fmt.Errorf("more than %d bytes", most))
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, fleet.Errorf(fleet.Denied, "MC-UFM-DENIED", "UFM at %s refuses the credential (%s)", a.URL, resp.Status).WithHint("check user, password_file or token_file in the server's configuration")
	case resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusGatewayTimeout:
		return nil, fleet.Errorf(fleet.Unavailable, "MC-UFM-SILENT", "UFM at %s answers %s to %s", a.URL, resp.Status, path)
	case method == http.MethodDelete && resp.StatusCode == http.StatusNotFound:
		return nil, nil // it is gone
	case resp.StatusCode/100 != 2:
		return nil, a.odd(path, fmt.Errorf("%s: %.200q", resp.Status, b))
	// Without a session UFM answers with its login page, and with success.
	case len(b) > 0 && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		return nil, fleet.Errorf(fleet.Denied, "MC-UFM-DENIED", "UFM at %s answers %s with a page for people", a.URL, path).WithHint("check user, password_file or token_file in the server's configuration")
	}
	return b, nil
}

// plain leaves the address out, which the message has already.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
