package report

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/metalctl/metalctl/fixtures/reports"
)

// What a page of 72 hours may cost.
const (
	mostBytes  = 5 << 20
	mostRender = 2 * time.Second
)

func TestPageOf72HoursIsSmall(t *testing.T) {
	var b bytes.Buffer
	if err := HTML(&b, reports.Of(reports.Options{Hours: 72, Sick: reports.Hot, Buckets: 4096})); err != nil {
		t.Fatal(err)
	}
	if b.Len() > mostBytes {
		t.Errorf("%d bytes, more than %d", b.Len(), mostBytes)
	}
}

// TestBench prints what drawing a report of 72 hours takes, and how long a browser takes to show the page.
func TestBench(t *testing.T) {
	if os.Getenv("METALCTL_BENCH") == "" {
		t.Skip("bench: set METALCTL_BENCH=1")
	}
	r := reports.Of(reports.Options{Hours: 72, Sick: reports.Hot, Buckets: 4096})
	b := encode(t, r)
	var read, drawn []time.Duration
	var page bytes.Buffer
	for range 5 {
		at := time.Now()
		if _, err := Read(b); err != nil {
			t.Fatal(err)
		}
		read = append(read, time.Since(at))
		page.Reset()
		at = time.Now()
		if err := HTML(&page, r); err != nil {
			t.Fatal(err)
		}
		drawn = append(drawn, time.Since(at))
	}
	var junit, sarif counter
	if err := JUnit(&junit, r); err != nil {
		t.Fatal(err)
	}
	if err := SARIF(&sarif, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("a report of 72 h, %d checks and %d series of up to 4096 buckets: JSON %s, page %s, JUnit %s, SARIF %s", len(r.Checks), len(r.Series), mib(len(b)), mib(page.Len()), mib(int(junit)), mib(int(sarif)))
	t.Logf("read in %s, page drawn in %s (medians of 5)", middleOf(read), middleOf(drawn))
	if page.Len() > mostBytes {
		t.Errorf("the page is larger than %s", mib(mostBytes))
	}
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Log("no chromium here: how long a browser takes is not measured")
		return
	}
	// The page's own policy allows no script but its own: it is taken off, for one that writes when all was loaded and laid out.
	const told = `<script>addEventListener("load",function(){var h=document.body.offsetHeight;document.title="laid out "+h+" pixels after "+Math.round(performance.now())+" ms"})</script></body>`
	open := bytes.Replace(bytes.Replace(page.Bytes(), []byte("Content-Security-Policy"), []byte("x-none"), 1), []byte("</body>"), []byte(told), 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "page.html")
	if err := os.WriteFile(file, open, 0o600); err != nil {
		t.Fatal(err)
	}
	var shown []time.Duration
	height := ""
	for range 5 {
		var stderr bytes.Buffer
		cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+filepath.Join(dir, "profile"), "--window-size=1280,1000", "--dump-dom", "file://"+file)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		m := regexp.MustCompile(`<title>laid out ([0-9]{4,}) pixels after ([0-9]+) ms</title>`).FindSubmatch(out)
		if m == nil {
			t.Fatal("the browser did not say when it was ready")
		}
		height = string(m[1])
		ms, err := strconv.Atoi(string(m[2]))
		if err != nil {
			t.Fatal(err)
		}
		shown = append(shown, time.Duration(ms)*time.Millisecond)
	}
	t.Logf("chromium has loaded and laid it out, %s pixels high, in %s (median of 5; limit %s)", height, middleOf(shown), mostRender)
	if middleOf(shown) > mostRender {
		t.Error("that is too long")
	}
}

type counter int

func (c *counter) Write(b []byte) (int, error) { *c += counter(len(b)); return len(b), nil }

func middleOf(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2].Round(time.Millisecond)
}

func mib(n int) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }
