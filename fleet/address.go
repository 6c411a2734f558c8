package fleet

import "strings"

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
