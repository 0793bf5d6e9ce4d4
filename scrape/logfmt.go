package scrape

import (
	"bytes"
	"unicode/utf8"
)

// pairs appends the pairs of a line of logfmt to the document that is written up
// to n, and returns its new end. It is negative if the line is not logfmt, or has
// no pair: then it is text.
func (c *Converter) pairs(out []byte, n int, src []byte, at, end int) int {
	found := false
	for at = skipBlank(src, at, end); at < end; at = skipBlank(src, at, end) {
		start, from := n, at
		out[n], out[n+1] = ',', '"'
		n, at = bareWords(out, n+2, src, at)
		key := src[from:at]
		if !endsBare(src[at]) {
			if n, at, key = copyOddKey(out, n, src, at, start, from); at < 0 {
				return -1
			}
		}
		if at == from { // at a quote or an equals sign, also behind a key or a value
			return -1
		}
		rule := c.rules.find(key)
		if rule != nil {
			n = rename(out, start, rule.name)
		}
		keyEnd := n
		if src[at] == '=' {
			found = true
			if n, at = copyValueOf(out, n, src, at+1, end); at < 0 {
				return -1
			}
		} else {
			n += copy(out[n:], `":null`)
		}
		if rule == nil {
			n = c.members.add(out, start, keyEnd, n, hashKey(key))
		} else {
			n = c.apply(rule, out, start, keyEnd, n)
		}
		if n < 0 {
			return -1
		}
	}
	if !found {
		return -1
	}
	return n
}

// skipBlank returns the place of the first byte from at to end that may begin a key, or
// end.
func skipBlank(src []byte, at, end int) int {
	for src[at] <= ' ' && at < end {
		at++
	}
	return at
}

// endsBare reports whether a byte ends a key or a bare value.
func endsBare(b byte) bool { return b <= ' ' || b == '=' || b == '"' }

// copyOddBare goes on where a key or a bare value comes upon a byte that may have
// to become something else. It reports whether the rest is the same in both.
func copyOddBare(out []byte, n int, src []byte, at int) (outEnd, srcEnd int, same bool) {
	for same = true; !endsBare(src[at]); {
		unchanged := false
		n, at, unchanged = copyOdd(out, n, src, at)
		same = same && unchanged
		n, at = bareWords(out, n, src, at)
	}
	return n, at, same
}

// copyOddKey goes on with a key as copyOddBare does, and returns all of it, which began at
// from and, with a comma and a quote, at start. srcEnd is negative if it is not
// UTF-8, or has U+FFFD in it.
func copyOddKey(out []byte, n int, src []byte, at, start, from int) (outEnd, srcEnd int, key []byte) {
	n, at, same := copyOddBare(out, n, src, at)
	if same {
		return n, at, src[from:at]
	}
	if key = out[start+2 : n]; bytes.ContainsRune(key, utf8.RuneError) {
		return n, -1, nil
	}
	return n, at, key
}

// copyValueOf copies what ends a key, and the value that begins at a place of the
// line. srcEnd is negative if it is not valid.
func copyValueOf(out []byte, n int, src []byte, at, end int) (outEnd, srcEnd int) {
	out[n], out[n+1], out[n+2] = '"', ':', '"'
	if src[at] == '"' {
		n, at, _ = copyQuoted(out, n+2, src, at+1, end, inLogfmt)
		return n, at
	}
	n, at = bareWords(out, n+3, src, at)
	if !endsBare(src[at]) {
		n, at, _ = copyOddBare(out, n, src, at)
	}
	out[n] = '"'
	return n + 1, at
}
