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
	at = skipBlank(src, at, end)
	for place := uint(0); at < end; place++ {
		start := n
		store(out, n, ','|'"'<<8)
		n += 2
		k := &c.keys[place%uint(len(c.keys))]
		if first, last := load(src, at), load(src, at+k.back); k.is(first, last) {
			store(out, n, first)
			store(out, n+k.back, last)
			n, at = n+k.size, at+k.size
		} else if n, at = c.copyKey(k, out, n, src, at); at < 0 {
			return -1
		}
		if k.rule != nil {
			n = rename(out, start, k.rule.name)
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
		if k.rule == nil && c.members.lacks(k.hash) {
			c.members.push(start, k.hash)
		} else if n = c.settle(k.rule, out, start, keyEnd, n, k.hash); n < 0 {
			return -1
		}
		at = skipBlank(src, at, end)
	}
	if !found {
		return -1
	}
	return n
}

// A knownKey is the key that stood last at a place of a line: the first, the second,
// and so on. Most lines have the keys of the line before, which two comparisons
// tell; where such a key ends, and what is to be done with it, is known already.
type knownKey struct {
	first, last uint64 // the first eight bytes of the key with its equals sign, and the last eight
	others      uint64 // the bits in both of what follows a shorter one; they are set
	back        int    // where the last eight begin
	size        int
	hash        uint32
	rule        *rule
}

// is reports whether the key is the one with these first and last eight bytes. The
// zero value is none, since none begins with a zero.
func (k *knownKey) is(first, last uint64) bool {
	return first|k.others == k.first && last|k.others == k.last
}

// copyKey copies the key that begins at a place of the line, and notes it in k.
// srcEnd is negative if it is not valid.
func (c *Converter) copyKey(k *knownKey, out []byte, n int, src []byte, at int) (outEnd, srcEnd int) {
	start, from := n, at
	n, at = bareWords(out, n, src, at)
	key := src[from:at]
	plain := endsBare(src[at])
	if !plain {
		if n, at, key = copyOddKey(out, n, src, at, start, from); at < 0 {
			return n, -1
		}
	}
	if at == from { // at a quote or an equals sign, also behind a key or a value
		return n, -1
	}
	*k = knownKey{size: len(key), hash: hashKey(key), rule: c.rules.find(key)}
	if plain && src[at] == '=' && k.size < 16 {
		k.others = ^uint64(0) << (8 * (k.size + 1))
		k.back = max(k.size-7, 0)
		k.first, k.last = load(src, from)|k.others, load(src, from+k.back)|k.others
	}
	return n, at
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
// from and, in out, at start. srcEnd is negative if it is not UTF-8, or has U+FFFD
// in it.
func copyOddKey(out []byte, n int, src []byte, at, start, from int) (outEnd, srcEnd int, key []byte) {
	n, at, same := copyOddBare(out, n, src, at)
	if same {
		return n, at, src[from:at]
	}
	if key = out[start:n]; bytes.ContainsRune(key, utf8.RuneError) {
		return n, -1, nil
	}
	return n, at, key
}

// copyValueOf copies what ends a key, and the value that begins at a place of the
// line. srcEnd is negative if it is not valid.
func copyValueOf(out []byte, n int, src []byte, at, end int) (outEnd, srcEnd int) {
	store(out, n, '"'|':'<<8|'"'<<16)
	if src[at] == '"' {
		n, at, _ = copyQuoted(out, n+2, src, at+1, end, inLogfmt)
		return n, at
	}
	n += 3
	for { // as bareWords does: a call for each value would take long
		word := load(src, at)
		store(out, n, word)
		if marks := bareMarks(word); marks != 0 {
			size := firstByte(marks)
			n, at = n+size, at+size
			break
		}
		n, at = n+8, at+8
	}
	if !endsBare(src[at]) {
		n, at, _ = copyOddBare(out, n, src, at)
	}
	out[n] = '"'
	return n + 1, at
}
