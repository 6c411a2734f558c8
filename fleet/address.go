package fleet

import (
	"regexp"
	"strings"
)

// WithoutUser takes user and password out of an address that may be no URL at all, so that it can stand in an error: whatever is before the last
// "@" becomes "***", but for a scheme.
func WithoutUser(address string) string {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return address
	}
	scheme := ""
	if i := strings.Index(address[:at], "://"); i >= 0 {
		scheme = address[:i+3]
	}
	return scheme + "***" + address[at:]
}

// WithoutQuery hides what stands in an address behind its first "?" or "#": it may be a signature, which opens what it names to whoever has it.
func WithoutQuery(address string) string {
	if i := strings.IndexAny(address, "?#"); i >= 0 {
		return address[:i+1] + "***"
	}
	return address
}

var queryInText = regexp.MustCompile(`([?#])[^\s"'<>]+`)

// WithoutQueries does that with every address in a text, such as an error of a library that repeats what it was asked.
func WithoutQueries(text string) string { return queryInText.ReplaceAllString(text, "$1***") }
