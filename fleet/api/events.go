package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/metalctl/metalctl/fleet"
)

// EventsNow, as After, begins with what is committed from now on.
const EventsNow int64 = -1

// WatchOptions choose a stream. Event and Progress are called from one goroutine, in order; an error of theirs ends the stream and is returned.
type WatchOptions struct {
	// After is the id of the last event already seen; 0 begins with the oldest that is kept, EventsNow with the next.
	After int64
	// Node, unless "", leaves out what is about other nodes.
	Node     string
	Event    func(fleet.Event) error
	Progress func(fleet.Progress) error
	// Position, unless nil, is called with the id that the stream has reached: at the beginning of each connection, and now and then.
	Position func(int64) error
	// Broken, unless nil, is called each time that the connection has ended or could not be made, before it is tried again.
	Broken func()
}

// Events calls fn for every event after that id, and follows; see Watch.
func (c *Client) Events(ctx context.Context, after int64, fn func(fleet.Event) error) error {
	return c.Watch(ctx, WatchOptions{After: after, Event: fn})
}

// Progress calls fn for every progress report from now on; see Watch.
func (c *Client) Progress(ctx context.Context, fn func(fleet.Progress) error) error {
	return c.Watch(ctx, WatchOptions{After: EventsNow, Progress: fn})
}

// EventsSince returns up to limit events after that id and does not follow.
func (c *Client) EventsSince(ctx context.Context, after int64, limit int) ([]fleet.Event, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}, "follow": {"false"}}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req := request{method: http.MethodGet, path: Base + "/events", query: q}
	res, err := c.send(ctx, req, nil, "")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out []fleet.Event
	dec := json.NewDecoder(res.Body)
	for {
		var e fleet.Event
		if err := dec.Decode(&e); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, c.transportError(ctx, req, err)
		}
		out = append(out, e)
	}
}

// Watch follows events and progress until ctx ends, a callback returns an error, or the server refuses (code MC-EVENTS-GONE: events after
// that id are no longer kept, list afresh). Where the connection breaks it resumes after the last event seen, with growing pauses up to 5 s.
func (c *Client) Watch(ctx context.Context, o WatchOptions) error {
	for failures := 0; ; {
		got, err := c.watchOnce(ctx, &o)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && fleet.KindOf(err) != fleet.Unavailable {
			return err
		}
		if failures++; got {
			failures = 0
		}
		if o.Broken != nil {
			o.Broken()
		}
		if err := sleep(ctx, min(time.Duration(failures+1)*250*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
	}
}

// watchOnce reads one connection; got tells whether anything came.
func (c *Client) watchOnce(ctx context.Context, o *WatchOptions) (got bool, err error) {
	q := url.Values{"after": {strconv.FormatInt(o.After, 10)}, "follow": {"true"}, "progress": {strconv.FormatBool(o.Progress != nil)}, "format": {"sse"}}
	if o.Node != "" {
		q.Set("node", o.Node)
	}
	req := request{method: http.MethodGet, path: Base + "/events", query: q}
	res, err := c.send(ctx, req, nil, "")
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	got, err = o.read(res.Body)
	var broken *streamError
	if errors.As(err, &broken) {
		err = c.transportError(ctx, req, broken.err)
	}
	return got, err
}

// streamError is a stream that broke, not what its messages say.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }

// read dispatches the messages of a stream (HTML Living Standard section 9.2.6) until it ends; a message that is cut short is dropped.
func (o *WatchOptions) read(r io.Reader) (got bool, err error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	var kind, id string
	var data bytes.Buffer
	for sc.Scan() {
		name, value, _ := bytes.Cut(sc.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			kind = string(value)
		case "id":
			id = string(value)
		case "data":
			data.Write(value)
		case "":
			if len(sc.Bytes()) > 0 {
				continue // a comment keeps the connection alive
			}
			got = true
			if err := o.dispatch(kind, id, data.Bytes()); err != nil {
				return got, err
			}
			kind, id = "", ""
			data.Reset()
		}
	}
	if err := sc.Err(); err != nil {
		return got, &streamError{err}
	}
	return got, nil
}

// dispatch hands one message of the stream to its callback and remembers where the stream is.
func (o *WatchOptions) dispatch(kind, id string, data []byte) error {
	switch kind {
	case "progress":
		if o.Progress == nil {
			return nil
		}
		var p fleet.Progress
		if err := json.Unmarshal(data, &p); err != nil {
			return fmt.Errorf("read progress from the server: %w", err)
		}
		return o.Progress(p)
	case "problem":
		var p Problem
		if err := json.Unmarshal(data, &p); err != nil {
			return fmt.Errorf("read an error from the server's stream: %w", err)
		}
		return p.Err()
	case "":
		return nil
	}
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return fmt.Errorf("read the server's stream: event id %q is no number", id)
	}
	if kind != "position" && o.Event != nil {
		var e fleet.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read event %s from the server: %w", id, err)
		}
		if err := o.Event(e); err != nil {
			return err
		}
	}
	o.After = n
	if kind == "position" && o.Position != nil {
		return o.Position(n)
	}
	return nil
}
