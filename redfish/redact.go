package redfish

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const hidden = "***"

// secretKey matches names of properties whose value nobody reads. UserName is among them as a pair is half a login.
var secretKey = regexp.MustCompile(`(?i)passw|passphrase|token|secret|username|privatekey|communitystring|encryptionkey|authenticationkey|licensestring`)

// urlKey matches names of properties that hold addresses with an unguessable path.
var urlKey = regexp.MustCompile(`(?i)^(image|imagename|imageuri|httpbooturi|destination)$`)

// scrubber knows the secrets of one BMC and removes them from whatever is shown or kept.
type scrubber struct {
	mu    sync.Mutex // guards words
	words []string   // longest first
}

// add learns a secret; texts under four bytes are too common to be searched for.
func (s *scrubber) add(secret string) {
	if len(secret) < 4 {
		return
	}
	forms := []string{secret, url.QueryEscape(secret), url.PathEscape(secret)}
	for _, html := range []bool{true, false} {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(html)
		if enc.Encode(secret) == nil {
			forms = append(forms, strings.Trim(strings.TrimSpace(b.String()), `"`))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range forms {
		if !slices.Contains(s.words, f) {
			s.words = append(s.words, f)
		}
	}
	slices.SortStableFunc(s.words, func(a, b string) int { return len(b) - len(a) })
	if len(s.words) > 256 { // tokens of long-gone sessions; each is short-lived
		s.words = s.words[:256]
	}
}

// addBasic learns what basic authentication puts on the wire.
func (s *scrubber) addBasic(user, password string) {
	s.add(base64.StdEncoding.EncodeToString([]byte(user + ":" + password)))
	s.add(password)
}

// addURL learns the path of an image's address.
func (s *scrubber) addURL(raw string) {
	if u, err := url.Parse(raw); err == nil && len(u.Path) > 8 {
		s.add(u.EscapedPath())
		s.add(u.RawQuery)
	}
}

func (s *scrubber) text(t string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.words {
		t = strings.ReplaceAll(t, w, hidden)
	}
	return t
}

// body returns a JSON body without secrets, whole; other bodies are only searched for known secrets.
func (s *scrubber) body(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if checkJSON(b) == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			var out bytes.Buffer
			enc := json.NewEncoder(&out)
			enc.SetEscapeHTML(false)
			if enc.Encode(redactValue(v)) == nil {
				return s.text(strings.TrimSpace(out.String()))
			}
		}
	}
	return s.text(string(b))
}

func redactValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, one := range v {
			str, isText := one.(string)
			switch {
			case isText && str != "" && secretKey.MatchString(key):
				v[key] = hidden
			case isText && urlKey.MatchString(key):
				v[key] = redactURL(str)
			default:
				v[key] = redactValue(one)
			}
		}
	case []any:
		for i := range v {
			v[i] = redactValue(v[i])
		}
	}
	return v
}

// redactURL keeps who serves an image and hides where it lies there.
func redactURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return s
	}
	return u.Scheme + "://" + u.Host + "/" + hidden
}
