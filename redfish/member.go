package redfish

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// memberText returns what resource.str says of a member of the object in body, without decoding the rest: "" where it is absent or no text.
func memberText(body []byte, name string) (found string, err error) {
	if err := checkJSON(body); err != nil {
		return "", err
	}
	body = bytes.TrimLeft(body, space)
	if body[0] != '{' {
		return "", errors.New("not a JSON object")
	}
	depth := 0
	for i := 0; i < len(body); i++ {
		switch body[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end := textEnd(body, i)
			rest := bytes.TrimLeft(body[end:], space)
			if depth == 1 && rest[0] == ':' && unquoted(body[i:end]) == name {
				found = ""
				if rest = bytes.TrimLeft(rest[1:], space); rest[0] == '"' { // the last of several counts, as with every decoder here
					found = unquoted(rest[:textEnd(rest, 0)])
				}
			}
			i = end - 1
		}
	}
	return found, nil
}

// space is what JSON calls white space.
const space = " \t\r\n"

// textEnd returns where the JSON text that begins at i has ended.
func textEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquoted decodes a text of well-formed JSON.
func unquoted(b []byte) string {
	if inner := b[1 : len(b)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	if json.Unmarshal(b, &s) != nil {
		return ""
	}
	return s
}
