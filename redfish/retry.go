package redfish

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rule says when a refused request may be sent again. Reads may always; a write only where the answer says that nothing was
// done.
type rule struct {
	status []int    // any of; empty: any
	ids    []string // MessageIds without prefix, any of; empty: any
	write  bool
	tries  int
	delay  time.Duration // doubled each time, up to four times
}

// rules is searched from the top. Sources: ironic power.py and firmware.py, sushy connector.py and virtual_media.py, gofish#75,
// check_redfish#198, Launchpad 2136275, microsoft/lisa#4030, DSP0266 section 8.5.
var rules = []rule{
	{ids: []string{"RAC0218", "SessionLimitExceeded", "CreateLimitReachedForResource"}, write: true, tries: 6, delay: 10 * time.Second},
	{ids: []string{"SYS518", "SYS428"}, write: true, tries: 6, delay: 10 * time.Second}, // iDRAC not ready
	{ids: []string{"RAC0904"}, write: true, tries: 3, delay: 3 * time.Second},           // iDRAC: the image is not reachable, sometimes
	{status: []int{400, 409}, ids: []string{"InvalidOperationForSystemState"}, write: true, tries: 5, delay: 5 * time.Second},
	{ids: []string{"UnableToModifyDuringSystemPOST"}, write: true, tries: 6, delay: 5 * time.Second},
	{ids: []string{"ServiceTemporarilyUnavailable", "ServiceInUnknownState", "ResourceInStandby"}, write: true, tries: 6, delay: 3 * time.Second},
	{status: []int{503, 429}, write: true, tries: 6, delay: 3 * time.Second},
	{status: []int{502, 504, 500}, tries: 4, delay: 2 * time.Second},
}

// again says how long to wait before the next try of method, or false. try counts from 1; err is the answer or the network's;
// told says that the BMC named a time in Retry-After, so that only the budget bounds the tries.
func again(method string, try int, told bool, e *Error, err error) (time.Duration, bool) {
	write := method != http.MethodGet && method != http.MethodHead
	if e == nil {
		if err == nil || !transient(err) || (write && !notSent(err)) || try >= 4 {
			return 0, false
		}
		return backoff(2*time.Second, try), true
	}
	for _, r := range rules {
		if len(r.status) > 0 && !slices.Contains(r.status, e.Status) || len(r.ids) > 0 && !e.Has(r.ids...) {
			continue
		}
		if write && !r.write || try >= r.tries && !told {
			return 0, false
		}
		return backoff(r.delay, try), true
	}
	return 0, false
}

// backoff doubles d for each try up to four times d and adds up to a fifth, so that many clients do not come at once.
func backoff(d time.Duration, try int) time.Duration {
	d <<= min(try-1, 2)
	return d + time.Duration(rand.Int64N(int64(d/5)+1))
}

// transient reports whether a network error may pass: the BMC restarts, drops a connection, is slow.
func transient(err error) bool {
	return err != nil && !isTLS(err) && !errors.Is(err, context.Canceled)
}

// notSent reports whether a request surely did not reach the BMC.
func notSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

const maxRetryAfter = 10 * time.Minute

// retryAfter reads Retry-After: seconds, or a date relative to the answer's own Date, as a BMC's clock is often wrong.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	var d time.Duration
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		if n < 0 {
			return 0, false
		}
		d = time.Duration(min(n, int64(maxRetryAfter/time.Second))) * time.Second
	} else {
		at, err := http.ParseTime(v)
		if err != nil {
			return 0, false
		}
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter), true
}
