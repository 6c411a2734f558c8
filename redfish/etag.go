package redfish

import (
	"slices"
	"strings"
)

// tagForms returns the forms of an entity tag to try in If-Match, best first: header, body, then the strong form of a weak
// tag. Services disagree about all three (ansible community.general#3268, #6434); empty tags are no tags.
func tagForms(header, body string) []string {
	h, b := normaliseTag(header), normaliseTag(body)
	if strings.HasPrefix(strings.TrimSpace(header), `""`) && b != "" {
		h = "" // quoted twice: the body's is right
	}
	var forms []string
	for _, t := range []string{h, b, strings.TrimPrefix(h, "W/"), strings.TrimPrefix(b, "W/")} {
		if t != "" && !slices.Contains(forms, t) {
			forms = append(forms, t)
		}
	}
	return forms
}

// normaliseTag trims what proxies and services add to a tag: blanks, a second pair of quotes, the -gzip suffix of a
// compressing server. A tag that is empty, too long or not printable ASCII is none.
func normaliseTag(tag string) string {
	tag = strings.TrimSpace(tag)
	weak := ""
	if strings.HasPrefix(tag, "W/") || strings.HasPrefix(tag, "w/") {
		weak, tag = "W/", tag[2:]
	}
	for len(tag) >= 4 && strings.HasPrefix(tag, `""`) && strings.HasSuffix(tag, `""`) {
		tag = tag[1 : len(tag)-1]
	}
	quoted := len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"'
	inner := tag
	if quoted {
		inner = tag[1 : len(tag)-1]
	}
	for _, suffix := range []string{"-gzip", ";gzip", "--gzip"} {
		inner = strings.TrimSuffix(inner, suffix)
	}
	if inner == "" || inner == `"` || len(inner) > 256 {
		return ""
	}
	for i := range len(inner) {
		if c := inner[i]; c <= ' ' || c >= 0x7f || c == '"' {
			return ""
		}
	}
	if quoted {
		return weak + `"` + inner + `"`
	}
	return weak + inner
}
