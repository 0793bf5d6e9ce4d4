package scrape

// pairs appends the pairs of a line of logfmt to the document that is written up
// to n, and returns its new end. It is negative if the line is not logfmt, or has
// no pair: then it is text.
func (c *Converter) pairs(out []byte, n int, src []byte, at, end int) int {
	found := false
	for {
		for src[at] <= ' ' {
			if at >= end {
				if !found {
					return -1
				}
				return n
			}
			at++
		}
		start, from, sound := n, at, true
		out[n], out[n+1] = ',', '"'
		n, at, sound = copyBare(out, n+2, src, at)
		keyEnd := n
		if at == from || !sound || src[at] == '"' {
			return -1
		}
		if src[at] == '=' {
			found = true
			if n, at = value(out, n, src, at+1, end); at < 0 {
				return -1
			}
		} else {
			n += copy(out[n:], `":null`)
		}
		if n = c.member(out, start, keyEnd, n); n < 0 {
			return -1
		}
	}
}

// value appends what ends a key and the value that begins at a place of the
// line. srcEnd is negative if it is not valid.
func value(out []byte, n int, src []byte, at, end int) (outEnd, srcEnd int) {
	out[n], out[n+1], out[n+2] = '"', ':', '"'
	if src[at] == '"' {
		n, at, _ = copyQuoted(out, n+2, src, at+1, end, inLogfmt)
		return n, at
	}
	n, at, _ = copyBare(out, n+3, src, at)
	if src[at] > ' ' {
		return n, -1
	}
	out[n] = '"'
	return n + 1, at
}
