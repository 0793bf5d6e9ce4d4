package scrape

// maxDepth is how deep values may lie in each other. Jackson, which Logstash
// reads with, has the same limit.
const maxDepth = 1000

// object appends the members of the JSON object that a line is to the document
// that is written up to n, without the space between tokens, and returns its new
// end. It is negative if the line is not an object.
func (c *Converter) object(out []byte, n int, src []byte, at, end int) int {
	if src[at] != '{' {
		return -1
	}
	at = skipSpace(src, at+1, end)
	if src[at] == '}' {
		at++
	} else if n, at = c.topMembers(out, n, src, at, end); at < 0 {
		return -1
	}
	if skipSpace(src, at, end) != end {
		return -1
	}
	return n
}

// topMembers appends the members of the line's object; at is the place of the
// first. srcEnd is the place behind the closing brace, or negative.
func (c *Converter) topMembers(out []byte, n int, src []byte, at, end int) (outEnd, srcEnd int) {
	for {
		start, from, same := n, at+1, true
		if src[at] != '"' {
			return n, -1
		}
		out[n] = ','
		if n, at, same = copyQuoted(out, n+1, src, from, end, inJSON); at < 0 {
			return n, -1
		}
		key := src[from : at-1]
		if !same {
			n = canonical(out, start+1, n)
			key = out[start+2 : n-1]
		}
		rule := c.rules.find(key)
		if rule != nil {
			n = rename(out, start, rule.name) + 1
			out[n-1] = '"'
		}
		keyEnd := n - 1
		if n, at = copyMember(out, n, src, at, end, 1); at < 0 {
			return n, -1
		}
		if rule == nil {
			n = c.members.add(out, start, keyEnd, n, hashKey(key))
		} else {
			n = c.apply(rule, out, start, keyEnd, n)
		}
		if n < 0 {
			return n, -1
		}
		switch src[at] {
		case ',':
			at = skipSpace(src, at+1, end)
		case '}':
			return n, at + 1
		default:
			return n, -1
		}
	}
}

// copyMember copies the colon and the value of a member; at is the place behind
// its key. srcEnd is the place of the next token, or negative.
func copyMember(out []byte, n int, src []byte, at, end, depth int) (outEnd, srcEnd int) {
	if at = skipSpace(src, at, end); src[at] != ':' {
		return n, -1
	}
	out[n] = ':'
	return copyValue(out, n+1, src, skipSpace(src, at+1, end), end, depth)
}

// copyValue copies a value of JSON. srcEnd is the place of the next token, or
// negative if the value is not valid.
func copyValue(out []byte, n int, src []byte, at, end, depth int) (outEnd, srcEnd int) {
	switch b := src[at]; b {
	case '"':
		n, at, _ = copyQuoted(out, n, src, at+1, end, inJSON)
	case '{', '[':
		if depth == maxDepth {
			return n, -1
		}
		n, at = copyNested(out, n, src, at, end, depth+1)
	case 't':
		n, at = copyWord(out, n, src, at, "true")
	case 'f':
		n, at = copyWord(out, n, src, at, "false")
	case 'n':
		n, at = copyWord(out, n, src, at, "null")
	default:
		n, at = copyNumber(out, n, src, at)
	}
	if at < 0 {
		return n, -1
	}
	return n, skipSpace(src, at, end)
}

// copyNested copies an object or an array.
func copyNested(out []byte, n int, src []byte, at, end, depth int) (outEnd, srcEnd int) {
	opening := src[at]
	closing := opening + 2 // } and ] stand two behind { and [
	out[n] = opening
	n++
	if at = skipSpace(src, at+1, end); src[at] == closing {
		out[n] = closing
		return n + 1, at + 1
	}
	for {
		if opening == '{' {
			if src[at] != '"' {
				return n, -1
			}
			if n, at, _ = copyQuoted(out, n, src, at+1, end, inJSON); at < 0 {
				return n, -1
			}
			n, at = copyMember(out, n, src, at, end, depth)
		} else {
			n, at = copyValue(out, n, src, at, end, depth)
		}
		if at < 0 {
			return n, -1
		}
		b := src[at]
		out[n] = b
		n++
		switch b {
		case closing:
			return n, at + 1
		case ',':
			at = skipSpace(src, at+1, end)
		default:
			return n, -1
		}
	}
}

func copyWord(out []byte, n int, src []byte, at int, word string) (outEnd, srcEnd int) {
	if string(src[at:at+len(word)]) != word {
		return n, -1
	}
	return n + copy(out[n:], word), at + len(word)
}

// copyNumber copies a number. Of 1.5e-3 the parts are the integer, the fraction
// and the exponent.
func copyNumber(out []byte, n int, src []byte, at int) (outEnd, srcEnd int) {
	start := at
	if src[at] == '-' {
		at++
	}
	first := at
	if at = skipDigits(src, at); at < 0 || src[first] == '0' && at > first+1 {
		return n, -1
	}
	if src[at] == '.' {
		if at = skipDigits(src, at+1); at < 0 {
			return n, -1
		}
	}
	if src[at]|0x20 == 'e' {
		if at++; src[at] == '+' || src[at] == '-' {
			at++
		}
		if at = skipDigits(src, at); at < 0 {
			return n, -1
		}
	}
	return n + copy(out[n:], src[start:at]), at
}

// skipDigits returns the place behind the digits at a place, or a negative number if
// there is none.
func skipDigits(src []byte, at int) int {
	start := at
	for src[at] >= '0' && src[at] <= '9' {
		at++
	}
	if at == start {
		return -1
	}
	return at
}

// skipSpace returns the place of the first byte from at to end that is no space, or
// end.
func skipSpace(src []byte, at, end int) int {
	for at < end && (src[at] == ' ' || src[at] == '\t' || src[at] == '\r' || src[at] == '\n') {
		at++
	}
	return at
}

// compact returns a value of JSON without the space between its tokens.
func compact(text string) (value string, ok bool) {
	out := make([]byte, expansion*len(text)+slack)
	src := appendPadded(nil, []byte(text))
	n, end := copyValue(out, 0, src, skipSpace(src, 0, len(text)), len(text), 0)
	return string(out[:n]), end == len(text)
}

// isNumber reports whether text is a number of JSON.
func isNumber(text string) bool {
	_, ok := compact(text)
	return ok && (text[0] == '-' || isDigit(text[0]))
}
