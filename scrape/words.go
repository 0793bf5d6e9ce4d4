package scrape

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// Text is copied and looked at by words of eight bytes: each is stored as it is,
// and its bytes that need attention are found by arithmetic on all eight at
// once. What is stored behind the first of them is written over later. So the
// functions here read up to 7 bytes behind the place where they stop, and write
// as much behind the place that they return.

func load(b []byte, at int) uint64           { return binary.LittleEndian.Uint64(b[at:]) }
func store(b []byte, at int, word uint64)    { binary.LittleEndian.PutUint64(b[at:], word) }
func firstByte(marks uint64) (index int)     { return bits.TrailingZeros64(marks) >> 3 }
func atMost(word, limit uint64) (low uint64) { return word + (0x7f-limit)*each }

// each has the value 1 in each byte, and tops their highest bits.
const (
	each = 0x0101010101010101
	tops = 0x80 * each
)

// textMarks marks the bytes of a word that cannot stand as they are in a JSON
// string, by the highest bit of each: control characters, quotes, backslashes
// and what is not ASCII.
//
// Without their highest bits, bytes can be added to without carrying into their
// neighbors: b+(0x7f-x) has that bit if b > x. Exclusive or with 2 moves the quote,
// 0x22, to the end of the control characters, and space out of its way.
func textMarks(word uint64) uint64 {
	ascii := word &^ tops
	fine := atMost(ascii^2*each, 0x20) & atMost(ascii^'\\'*each, 0)
	return (^fine | word) & tops
}

// bareMarks marks the bytes that textMarks does, and those that end a key or a
// bare value of logfmt: spaces and equals signs. It marks exclamation marks too,
// which costs less than to tell them from spaces and quotes.
func bareMarks(word uint64) uint64 {
	ascii := word &^ tops
	fine := atMost(ascii, '"') & atMost(ascii^'='*each, 0) & atMost(ascii^'\\'*each, 0)
	return (^fine | word) & tops
}

// copyBare copies a key or a bare value of logfmt from src to out, as JSON has it,
// up to a byte that ends it. It returns the places behind it, and whether all of it
// was UTF-8 without U+FFFD.
func copyBare(out []byte, n int, src []byte, at int) (outEnd, srcEnd int, sound bool) {
	sound = true
	for {
		word := load(src, at)
		store(out, n, word)
		marks := bareMarks(word)
		if marks == 0 {
			n, at = n+8, at+8
			continue
		}
		first := firstByte(marks)
		n, at = n+first, at+first
		switch b := src[at]; {
		case b <= ' ' || b == '=' || b == '"':
			return n, at, sound
		case b < utf8.RuneSelf:
			n, at = copyByte(out, n, b), at+1
		default:
			var fine bool
			n, at, fine = copyRune(out, n, src, at)
			sound = sound && fine
		}
	}
}

// copyText copies src up to a place to out, as JSON has it.
func copyText(out []byte, n int, src []byte, end int) int {
	for at := 0; ; {
		word := load(src, at)
		store(out, n, word)
		marks := textMarks(word)
		if marks == 0 {
			n, at = n+8, at+8
			continue
		}
		first := firstByte(marks)
		n, at = n+first, at+first
		switch b := src[at]; {
		case at >= end:
			return n
		case b < utf8.RuneSelf:
			n, at = copyByte(out, n, b), at+1
		default:
			n, at, _ = copyRune(out, n, src, at)
		}
	}
}

// copyByte appends a byte that is ASCII, escaped if it has to be, and then as
// shortly as possible.
func copyByte(out []byte, n int, b byte) int {
	const hex = "0123456789abcdef"
	const short = "btn-fr" // for the bytes from 0x08; that of - has none
	switch {
	case b == '"' || b == '\\':
		return n + copy(out[n:], []byte{'\\', b})
	case b >= '\b' && b <= '\r' && b != '\v':
		return n + copy(out[n:], []byte{'\\', short[b-'\b']})
	case b < ' ':
		return n + copy(out[n:], []byte{'\\', 'u', '0', '0', hex[b>>4], hex[b&15]})
	}
	out[n] = b
	return n + 1
}

// copyRune copies a character that is not ASCII, or U+FFFD for a byte that is
// none. It reports whether it was another character than that.
func copyRune(out []byte, n int, src []byte, at int) (outEnd, srcEnd int, sound bool) {
	r, size := utf8.DecodeRune(src[at:])
	return n + utf8.EncodeRune(out[n:], r), at + size, r != utf8.RuneError
}
