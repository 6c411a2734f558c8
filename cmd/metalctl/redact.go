//go:build !ramdisk

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const hidden = "***"

// secretName is what a member, header or setting is called that holds a secret.
const secretName = `(?:password|passwd|secret|token|user_?data|private_?key|api_?key|authorization|cookie|credential|ssh_?keys?)`

var secretMember = regexp.MustCompile(`(?i)^[a-z0-9_.-]*` + secretName + `[a-z0-9_.-]*$`)

// secretTexts are texts that look like secrets, with what takes their place.
var secretTexts = []struct {
	re   *regexp.Regexp
	with string
}{
	// Members of JSON whose name says what they are, with one text or a list of texts.
	{regexp.MustCompile(`(?i)("[a-z0-9_.-]*` + secretName + `[a-z0-9_.-]*"\s*:\s*)"(?:[^"\\]|\\.)*"`), `${1}"***"`},
	{regexp.MustCompile(`(?i)("[a-z0-9_.-]*` + secretName + `[a-z0-9_.-]*"\s*:\s*)\[\s*"(?:[^"\\]|\\.)*"(?:\s*,\s*"(?:[^"\\]|\\.)*")*\s*\]`), `${1}["***"]`},
	// The same in plain text, as console lines have it, or quoted within another text.
	{regexp.MustCompile(`(?i)((?:password|passwd|secret|token|api[_-]?key|x-auth-token|user_?data)[\\"']*\s*[=:]\s*[\\"']*)[^\s"',;&\\]+`), `${1}***`},
	{regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}`), `${1}***`},
	// Users and passwords in addresses, and their queries, which may sign them.
	{regexp.MustCompile(`([a-z][a-z0-9+.-]*://)[^/\s"@]+@`), `${1}***@`},
	{regexp.MustCompile(`([a-z][a-z0-9+.-]*://[^\s"?]+\?)[^\s"]+`), `${1}***`},
	// What makes an address of media or images unguessable.
	{regexp.MustCompile(`(/(?:boot|images)/)[A-Za-z0-9_-]{16,}`), `${1}***`},
	// Keys of people, which say who a tenant is.
	{regexp.MustCompile(`((?:ssh-[a-z0-9]+|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+)(?:\s|\\[nt])+)[A-Za-z0-9+/=]{16,}`), `${1}***`},
	// Named tokens and the administrator's.
	{regexp.MustCompile(`\bmc-[A-Za-z0-9_-]{20,}`), `mc-***`},
}

var (
	privateKey = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-[^-])*-----END [A-Z ]*PRIVATE KEY-----`)
	word       = regexp.MustCompile(`[A-Za-z0-9_-]+`)
)

// redact takes out what looks like a secret, wherever it stands: too much rather than too little.
func redact(b []byte) []byte {
	b = privateKey.ReplaceAll(b, []byte(hidden))
	for _, s := range secretTexts {
		b = s.re.ReplaceAll(b, []byte(s.with))
	}
	return word.ReplaceAllFunc(b, func(w []byte) []byte {
		if !looksRandom(w) {
			return w
		}
		return []byte(hidden)
	})
}

// looksRandom tells 256 random bits that somebody made into a token from other words.
func looksRandom(w []byte) bool {
	return len(w) == base64.RawURLEncoding.EncodedLen(32) && bytes.ContainsAny(w, "0123456789") && !bytes.Equal(w, bytes.ToLower(w)) && !bytes.Equal(w, bytes.ToUpper(w))
}

// leastSecret is the length in bytes from which on a secret is looked for by its text: a shorter one would stand in every other word.
const leastSecret = 4

// hider replaces secrets that are known by their text, in each form in which a log or a file may have them.
func hider(secrets []string) *strings.Replacer {
	forms := map[string]bool{}
	for _, s := range secrets {
		if s = strings.TrimSpace(s); len(s) < leastSecret {
			continue
		}
		quoted := strconv.Quote(s)
		again := strconv.Quote(quoted)
		for _, form := range []string{s, quoted[1 : len(quoted)-1], again[3 : len(again)-3], url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.URLEncoding.EncodeToString([]byte(s))} {
			forms[form] = true
		}
	}
	var pairs []string
	// The longest first: a replacer takes the first that fits.
	for _, f := range slices.SortedFunc(maps.Keys(forms), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	}) {
		pairs = append(pairs, f, hidden)
	}
	return strings.NewReplacer(pairs...)
}

// secretsIn returns the secrets in a sealed text: the members of JSON that are called so, also in JSON within it; the lines of a key; or all of it.
func secretsIn(text string) []string {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &object) != nil {
		var out []string
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "-----") {
				out = append(out, strings.TrimSpace(line))
			}
		}
		return out
	}
	var out []string
	for name, raw := range object {
		var s string
		switch {
		case raw[0] == '{':
			out = append(out, secretsIn(string(raw))...)
		case json.Unmarshal(raw, &s) != nil:
		case strings.HasPrefix(s, "{"):
			out = append(out, secretsIn(s)...)
		case secretMember.MatchString(name) || name == "media_id":
			out = append(out, s)
		}
	}
	return out
}
