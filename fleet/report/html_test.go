package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/metalctl/metalctl/fixtures/reports"
	"github.com/metalctl/metalctl/fleet"
)

func drawHTML(b *bytes.Buffer, r fleet.BurnReport) error { return HTML(b, r) }

// void elements have no end tag.
var void = []string{"meta", "link", "br", "input"}

// walk hands every tag of a page to see, and fails where one is not closed or closes another.
func walk(t *testing.T, page []byte, see func(tok html.Token, stack []string, text string)) {
	t.Helper()
	z := html.NewTokenizer(bytes.NewReader(page))
	var stack []string
	for {
		switch z.Next() {
		case html.ErrorToken:
			if len(stack) > 0 {
				t.Errorf("never closed: %v", stack)
			}
			return
		case html.StartTagToken:
			tok := z.Token()
			see(tok, stack, "")
			if !slices.Contains(void, tok.Data) {
				stack = append(stack, tok.Data)
			}
		case html.SelfClosingTagToken:
			see(z.Token(), stack, "")
		case html.TextToken:
			see(html.Token{Type: html.TextToken}, stack, string(z.Text()))
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(stack) == 0 || stack[len(stack)-1] != string(name) {
				t.Fatalf("</%s> closes %v", name, stack)
			}
			stack = stack[:len(stack)-1]
		}
	}
}

// shapes are the elements with their attributes that a page has.
func shapes(t *testing.T, page []byte) map[string]bool {
	out := map[string]bool{}
	walk(t, page, func(tok html.Token, _ []string, _ string) {
		for _, a := range tok.Attr {
			out[tok.Data+" "+a.Key] = true
		}
		out[tok.Data] = true
	})
	return out
}

func TestHTML(t *testing.T) {
	all := everyReport()
	known := map[string]bool{}
	for _, r := range all {
		maps.Copy(known, shapes(t, draw(t, r, drawHTML)))
	}
	all["hostile"] = hostile()
	script, err := os.ReadFile("page/filter.js")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range all {
		t.Run(name, func(t *testing.T) {
			page := draw(t, r, drawHTML)
			var policy, scripts, styles, ids, refs []string
			level, heads := 0, 0
			walk(t, page, func(tok html.Token, stack []string, text string) {
				if len(stack) > 0 && stack[len(stack)-1] == "script" {
					scripts = append(scripts, text)
				}
				if len(stack) > 0 && stack[len(stack)-1] == "style" {
					styles = append(styles, text)
				}
				attr := map[string]string{}
				for _, a := range tok.Attr {
					attr[a.Key] = a.Val
					switch {
					case slices.Contains([]string{"src", "srcset", "action", "data", "poster", "xlink:href", "style", "formaction", "background"}, a.Key), strings.HasPrefix(a.Key, "on"):
						t.Errorf("%s", tok)
					case a.Key == "href" && !strings.HasPrefix(a.Val, "#") && a.Val != "data:,":
						t.Errorf("%s leads out of the page", tok)
					case a.Key == "href":
						refs = append(refs, strings.TrimPrefix(a.Val, "#"))
					case a.Key == "id":
						ids = append(ids, a.Val)
					}
				}
				switch {
				case tok.Data == "meta" && attr["http-equiv"] == "Content-Security-Policy":
					policy = append(policy, attr["content"])
				case tok.Data == "th" && attr["scope"] == "", tok.Data == "svg" && attr["aria-label"] == "" && attr["aria-hidden"] == "" && !slices.Contains(stack, "div"):
					t.Errorf("%s tells a screen reader nothing", tok)
				case len(tok.Data) == 2 && tok.Data[0] == 'h' && tok.Data[1] >= '1' && tok.Data[1] <= '6':
					if n := int(tok.Data[1] - '0'); n > level+1 {
						t.Errorf("a heading of level %d after one of level %d", n, level)
					} else {
						level = n
					}
					if tok.Data == "h1" {
						heads++
					}
				}
			})
			if heads != 1 {
				t.Errorf("%d headings of level 1", heads)
			}
			for _, ref := range refs {
				if ref != "data:," && !slices.Contains(ids, ref) {
					t.Errorf("#%s leads nowhere", ref)
				}
			}
			if len(ids) != len(slices.Compact(slices.Sorted(slices.Values(ids)))) {
				t.Errorf("an id is there twice: %v", ids)
			}
			sum := sha256.Sum256(script)
			if len(scripts) != 1 || scripts[0] != string(script) {
				t.Errorf("%d scripts, or another one", len(scripts))
			}
			if len(policy) != 1 || !strings.Contains(policy[0], "default-src 'none'") || !strings.Contains(policy[0], base64.StdEncoding.EncodeToString(sum[:])) {
				t.Errorf("policy %q", policy)
			}
			for _, s := range styles {
				if strings.Contains(s, "url(") || strings.Contains(s, "@import") {
					t.Error("the style loads something")
				}
			}
			for shape := range shapes(t, page) {
				if !known[shape] {
					t.Errorf("text of the report became %q", shape)
				}
			}
			if bytes.ContainsAny(page, "\x00\x1b") || bytes.Contains(page, []byte("ZgotmplZ")) {
				t.Error("a control character, or what the template refused")
			}
		})
	}
}

// TestHTMLSays what people look for first.
func TestHTMLSays(t *testing.T) {
	for name, want := range map[string][]string{
		"healthy":  {"pass", "Nothing.", "None differs from its fellows.", "made up from the fixture hgx-h200", "learned from 12 nodes"},
		"silent":   {"GPU 3 in slot SXM3, serial 1650723040245: replace it", "bit 11", "Xid 13", "GPU 3, of which a check failed, is no exception here."},
		"hot":      {"GPU 6 in slot SXM6, serial 1650723040296: take it out", "GPU 6 goes another way than the fellows.", "+83 %"},
		"platform": {"could not tell", "no part is condemned", "It did not finish: nothing could be measured on any GPU", "the machine: bring software or firmware to versions that fit"},
	} {
		page := html.UnescapeString(string(draw(t, everyReport()[name], drawHTML)))
		for _, w := range want {
			if !strings.Contains(page, w) {
				t.Errorf("%s does not say %q", name, w)
			}
		}
	}
}

// TestDiffers names the one that differs, however slightly its fellows do, and none where all are alike.
func TestDiffers(t *testing.T) {
	for _, c := range []struct {
		sick string
		want string
	}{{reports.Healthy, ""}, {reports.Silent, ""}, {reports.Hot, "gpu/6 temperature, gpu/6 memory-temperature, gpu/6 power, gpu/6 sm-clock"}, {reports.Platform, ""}} {
		for seed := range uint64(8) {
			r := reports.Of(reports.Options{Hours: 6, Sick: c.sick, Seed: seed, Buckets: 512})
			var got []string
			for _, g := range groups(&r) {
				for _, l := range g.lines {
					if l.differs {
						got = append(got, l.component+" "+g.name)
					}
				}
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("%s, seed %d: got %q, want %q", c.sick, seed, s, c.want)
			}
		}
	}
}

// TestSeriesInPieces draws what comes in a piece for each stage as it draws what comes at once.
func TestSeriesInPieces(t *testing.T) {
	whole := reports.Of(reports.Options{Hours: 2, Buckets: 128})
	pieces := whole
	pieces.Series = nil
	for _, s := range whole.Series {
		a, b := s, s
		k := len(s.Mean) / 3
		a.Mean, a.Min, a.Max = s.Mean[:k], s.Min[:k], s.Max[:k]
		b.Mean, b.Min, b.Max = s.Mean[k:], s.Min[k:], s.Max[k:]
		b.Start = s.Start.Add(time.Duration(float64(k) * s.Bucket * float64(time.Second)))
		pieces.Series = append(pieces.Series, b, a)
	}
	if !bytes.Equal(draw(t, whole, drawHTML), draw(t, pieces, drawHTML)) {
		t.Error("series in pieces are drawn otherwise")
	}
}
