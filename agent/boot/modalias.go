package boot

// matchAlias reports whether a device's modalias fits a pattern of modules.alias: fnmatch(3) without special slashes, as modprobe
// does it.
func matchAlias(pattern, s string) bool {
	// star and mark are where to go back to after the last '*'.
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) {
			switch c := pattern[p]; c {
			case '*':
				star, mark = p, i
				p++
				continue
			case '?':
				p, i = p+1, i+1
				continue
			case '[':
				if n, ok := matchClass(pattern[p:], s[i]); n > 0 {
					if ok {
						p, i = p+n, i+1
						continue
					}
				} else if s[i] == '[' {
					p, i = p+1, i+1
					continue
				}
			default:
				if c == s[i] {
					p, i = p+1, i+1
					continue
				}
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchClass matches c against the class that begins pattern and returns the class's length, or 0 where it is not closed.
func matchClass(pattern string, c byte) (length int, ok bool) {
	i, negate := 1, false
	if i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^') {
		negate = true
		i++
	}
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return i + 1, ok != negate
		}
		low, high := pattern[i], pattern[i]
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			high = pattern[i+2]
			i += 2
		}
		if low <= c && c <= high {
			ok = true
		}
		i++
	}
	return 0, false
}
