package scrape

import "unicode/utf8"

// Quoted strings of logfmt and of JSON are nearly the same, and nearly what is
// to come out.

// dialect tells the two kinds of quoted strings apart.
type dialect bool

const (
	inLogfmt dialect = false // control characters may stand in it unless it has escapes, and \' is one
	inJSON   dialect = true
)

// copyQuoted copies a quoted string to out, in quotes; at is the place behind
// the opening one. It returns the places behind it; srcEnd is negative if the
// string is not valid, or not closed before end. same reports whether it is the same
// in both.
func copyQuoted(out []byte, n int, src []byte, at, end int, d dialect) (outEnd, srcEnd int, same bool) {
	out[n] = '"'
	n, at = textWords(out, n+1, src, at)
	if src[at] == '"' {
		return n + 1, at + 1, true // the quote was stored with its word
	}
	return copyOddQuoted(out, n, src, at, end, d)
}

// copyOddQuoted goes on where copyQuoted comes upon a byte that may have to
// become something else.
func copyOddQuoted(out []byte, n int, src []byte, at, end int, d dialect) (outEnd, srcEnd int, same bool) {
	same = true
	for control, escaped := false, false; ; {
		switch b := src[at]; {
		case at >= end:
			return n, -1, false
		case b == '"':
			if control && (escaped || d == inJSON) {
				return n, -1, false
			}
			return n + 1, at + 1, same
		case b == '\\':
			escaped, same = true, false
			if n, at = copyEscape(out, n, src, at, d); at < 0 {
				return n, -1, false
			}
		default:
			control = control || b < ' '
			unchanged := false
			n, at, unchanged = copyOdd(out, n, src, at)
			same = same && unchanged
		}
		n, at = textWords(out, n, src, at)
	}
}

// copyEscape copies an escape as it is, as far as JSON has it: \' becomes the
// quote, and half of a pair of surrogates U+FFFD. srcEnd is negative if the escape
// is not valid.
func copyEscape(out []byte, n int, src []byte, at int, d dialect) (outEnd, srcEnd int) {
	switch b := src[at+1]; b {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		out[n], out[n+1] = '\\', b
		return n + 2, at + 2
	case '\'':
		if d == inLogfmt {
			out[n] = b
			return n + 1, at + 2
		}
	case 'u':
		return copyUnicode(out, n, src, at)
	}
	return n, -1
}

// copyUnicode copies an escape \u1234, or two that are a pair.
func copyUnicode(out []byte, n int, src []byte, at int) (outEnd, srcEnd int) {
	const replacement = `\ufffd`
	r := unicodeEscape(src[at:])
	switch {
	case r < 0:
		return n, -1
	case r < 0xd800 || r > 0xdfff:
		return n + copy(out[n:], src[at:at+6]), at + 6
	case r < 0xdc00:
		if low := unicodeEscape(src[at+6:]); low >= 0xdc00 && low <= 0xdfff {
			return n + copy(out[n:], src[at:at+12]), at + 12
		}
	}
	return n + copy(out[n:], replacement), at + 6
}

// unicodeEscape decodes the escape \u1234 that s begins with. It is negative if
// there is none.
func unicodeEscape(s []byte) (r rune) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	for _, b := range s[2:6] {
		digit := hexDigit(b)
		if digit < 0 {
			return -1
		}
		r = r<<4 | digit
	}
	return r
}

func hexDigit(b byte) rune {
	switch lower := b | 0x20; {
	case b >= '0' && b <= '9':
		return rune(b - '0')
	case lower >= 'a' && lower <= 'f':
		return rune(lower-'a') + 10
	}
	return -1
}

// canonical rewrites the JSON string that stands in out from at to n, in quotes,
// without escapes that it can do without, so that equal keys are equal bytes. It
// returns the new end. No character takes more room than before.
func canonical(out []byte, at, n int) int {
	to := at + 1
	for from := at + 1; from < n-1; {
		if out[from] != '\\' {
			out[to] = out[from]
			from, to = from+1, to+1
			continue
		}
		r, size := unescape(out[from : n-1])
		from += size
		if r < utf8.RuneSelf {
			to = copyByte(out, to, byte(r))
		} else {
			to += utf8.EncodeRune(out[to:], r)
		}
	}
	out[to] = '"'
	return to + 1
}

// unescape decodes the valid escape that s begins with.
func unescape(s []byte) (r rune, size int) {
	switch s[1] {
	case 'u':
		r = unicodeEscape(s)
		if r >= 0xd800 && r <= 0xdbff {
			return (r-0xd800)<<10 + (unicodeEscape(s[6:]) - 0xdc00) + 0x10000, 12
		}
		return r, 6
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	}
	return rune(s[1]), 2
}
