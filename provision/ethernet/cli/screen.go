package cli

import "strings"

// screen is what a terminal shows of raw: lines without what was typed over, without colours and without spaces at their ends.
func screen(raw []byte) []string {
	var lines []string
	var line []rune
	col := 0
	text := []rune(string(raw))
	for i := 0; i < len(text); i++ {
		switch r := text[i]; {
		case r == '\n':
			lines = append(lines, strings.TrimRight(string(line), " "))
			line, col = nil, 0
		case r == '\r':
			col = 0
		case r == '\b':
			col = max(0, col-1)
		case r == 0x1b:
			i = escape(text, i)
		case r == '\t' || r >= ' ' && r != 0x7f:
			if col < len(line) {
				line[col] = r
			} else {
				line = append(line, r)
			}
			col++
		}
	}
	return append(lines, strings.TrimRight(string(line), " "))
}

// escape is the place of the last character of the escape sequence that begins at i.
func escape(text []rune, i int) int {
	if i+1 >= len(text) || text[i+1] != '[' {
		return min(i+1, len(text)-1)
	}
	for i += 2; i < len(text); i++ {
		if text[i] >= '@' && text[i] <= '~' {
			return i
		}
	}
	return len(text) - 1
}
