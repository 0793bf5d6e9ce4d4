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

func load(b []byte, at int) uint64        { return binary.LittleEndian.Uint64(b[at : at+8]) }
func store(b []byte, at int, word uint64) { binary.LittleEndian.PutUint64(b[at:at+8], word) }
func firstByte(marks uint64) (index int)  { return bits.TrailingZeros64(marks) >> 3 }

// each has the value 1 in each byte, and tops their highest bits.
const (
	each = 0x0101010101010101
	tops = 0x80 * each
)

// textMarks marks the first byte of a word that cannot stand as it is in a JSON
// string, by its highest bit: a control character, a quote, a backslash or what
// is not ASCII. Bytes behind it may be marked without a reason.
//
// b-x has that bit if b < x, unless b has it, which is marked anyway. What it
// borrows from its neighbor can only mark bytes behind it. Exclusive or with 2
// moves the quote, 0x22, to the end of the control characters, and space out of
// its way.
func textMarks(word uint64) uint64 {
	low := (word ^ 2*each) - 0x21*each
	backslash := (word ^ '\\'*each) - each
	return (low | backslash | word) & tops
}

// bareMarks marks as textMarks does, and also what ends a key or a bare value of
// logfmt: spaces and equals signs. It marks exclamation marks too, which costs
// less than to tell them from spaces and quotes.
func bareMarks(word uint64) uint64 {
	low := word - ('"'+1)*each
	equals := (word ^ '='*each) - each
	backslash := (word ^ '\\'*each) - each
	return (low | equals | backslash | word) & tops
}

// bareWords copies src to out up to the first byte that bareMarks marks, and
// returns its places in both. It has to be there, eight bytes before the end of
// either. It calls nothing, and so costs no more than its loop.
func bareWords(out []byte, n int, src []byte, at int) (outEnd, srcEnd int) {
	for {
		word := load(src, at)
		store(out, n, word)
		if marks := bareMarks(word); marks != 0 {
			size := firstByte(marks)
			return n + size, at + size
		}
		n, at = n+8, at+8
	}
}

// textWords is as bareWords, up to the first byte that textMarks marks.
func textWords(out []byte, n int, src []byte, at int) (outEnd, srcEnd int) {
	for {
		word := load(src, at)
		store(out, n, word)
		if marks := textMarks(word); marks != 0 {
			size := firstByte(marks)
			return n + size, at + size
		}
		n, at = n+8, at+8
	}
}

// copyText copies src up to a place to out, as JSON has it.
func copyText(out []byte, n int, src []byte, end int) int {
	for at := 0; ; {
		n, at = textWords(out, n, src, at)
		if at >= end {
			return n
		}
		n, at, _ = copyOdd(out, n, src, at)
	}
}

// copyOdd copies the character that begins at a place of src, as JSON has it. It
// reports whether it is the same in both.
func copyOdd(out []byte, n int, src []byte, at int) (outEnd, srcEnd int, same bool) {
	if b := src[at]; b < utf8.RuneSelf {
		end := copyByte(out, n, b)
		return end, at + 1, end == n+1
	}
	r, size := utf8.DecodeRune(src[at:])
	return n + utf8.EncodeRune(out[n:], r), at + size, r != utf8.RuneError
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
