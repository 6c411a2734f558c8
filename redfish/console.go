package redfish

import (
	"context"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ConsoleLine is one line that the host said on its serial console.
type ConsoleLine struct {
	// At is zero where the BMC does not say when (bmcweb does not).
	At   time.Time
	Text string
}

// consoleLines is how many lines one look reads at most: a page of bmcweb.
const consoleLines = 1000

// Console returns what the host said on its serial console behind position after, oldest first, and the position to go on from: the
// number of the last line that there is, -1 before any. At most the last 1,000 lines are read. A BMC that keeps no console gives no lines and -1. Only a log
// service named HostLogger counts (OpenBMC): other vendors give the console over SSH or IPMI alone, or as one whole text.
func (b *BMC) Console(ctx context.Context, after int64) ([]ConsoleLine, int64, error) {
	entries, err := b.consoleLog(ctx)
	if err != nil || entries == "" {
		return nil, -1, explain(err, "look for the console's log")
	}
	first, err := b.get(ctx, entries+"?$top=1")
	paged := true
	if st := statusOf(err); st == http.StatusBadRequest || st == http.StatusNotImplemented {
		paged = false
		first, err = b.get(ctx, entries)
	}
	if err != nil {
		return nil, -1, explain(err, "read the console's log")
	}
	skip := max(0, first.number("Members@odata.count")-consoleLines)
	page := first
	if paged {
		if page, err = b.get(ctx, entries+"?$skip="+strconv.Itoa(skip)); err != nil {
			return nil, -1, explain(err, "read the console's log")
		}
	}
	return consolePage(page, int64(skip), after)
}

// consoleLog finds the log service once; "" where there is none.
func (b *BMC) consoleLog(ctx context.Context) (string, error) {
	b.mu.Lock()
	known := b.console
	b.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	h, err := b.host(ctx)
	if err != nil {
		return "", err
	}
	found := ""
	if services := h.link("LogServices"); services != "" {
		all, err := b.members(ctx, services)
		if err != nil && statusOf(err) != http.StatusNotFound {
			return "", err
		}
		for _, uri := range all {
			if path.Base(uri) != "HostLogger" {
				continue
			}
			s, err := b.get(ctx, uri)
			if err != nil {
				return "", err
			}
			found = s.link("Entries")
		}
	}
	b.mu.Lock()
	b.console = &found
	b.mu.Unlock()
	return found, nil
}

// consolePage takes the lines behind position after from a page that begins at index skip. Where the last line lies before after, the log began anew.
func consolePage(page *resource, skip, after int64) ([]ConsoleLine, int64, error) {
	type numbered struct {
		n int64
		ConsoleLine
	}
	var all []numbered
	last := int64(-1)
	members, _ := page.at("Members").([]any)
	for i, m := range members[:min(len(members), consoleLines)] {
		n, err := strconv.ParseInt(text(dig(m, "Id")), 10, 64)
		if err != nil || n < 0 {
			n = skip + int64(i)
		}
		at, err := time.Parse(time.RFC3339, text(dig(m, "Created")))
		if err != nil {
			at = time.Time{}
		}
		all = append(all, numbered{n, ConsoleLine{at, plainLine(text(dig(m, "Message")))}})
		last = max(last, n)
	}
	var out []ConsoleLine
	for _, l := range all {
		if (l.n > after || last < after) && l.Text != "" {
			out = append(out, l.ConsoleLine)
		}
	}
	return out, last, nil
}

// terminal are the sequences by which firmware moves the cursor and paints (ECMA-48, section 5.4).
var terminal = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-_]`)

// plainLine is a line as it stands on a terminal at last: what a carriage return overwrote is gone, and so are colours.
func plainLine(s string) string {
	s = terminal.ReplaceAllString(s, "")
	parts := strings.Split(s, "\r")
	for i := len(parts) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(printable(parts[i], 400)); l != "" {
			return l
		}
	}
	return ""
}

// SecureBoot is whether the host's present boot enforces signatures: "Enabled", "Disabled", or "" where the BMC does not tell.
func (b *BMC) SecureBoot(ctx context.Context) (string, error) {
	h, err := b.host(ctx)
	if err != nil {
		return "", err
	}
	uri := h.link("SecureBoot")
	if uri == "" {
		return "", nil
	}
	s, err := b.get(ctx, uri)
	if err != nil {
		return "", explain(err, "read the Secure Boot state")
	}
	return clean(s.str("SecureBootCurrentBoot")), nil
}
