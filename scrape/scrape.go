// Package scrape turns log lines of programs, in logfmt or JSON, into the JSON
// documents that Logstash takes, a line each. It works on bytes in memory alone:
// where they come from and where they go is its caller's affair. Package ship
// brings them on, and the two meet in subcmd.
//
// A document has @timestamp, @version, the static fields of Options, and what
// the line says. The keys time and msg of a line become @timestamp and message.
// A time counts if it is an RFC 3339 string, since Logstash takes nothing else
// for certain; another stays under its own name, and the moment of conversion
// stands in for it. Values of logfmt are strings; a key without = has the value
// null. Values of JSON go on as they are.
//
// Whatever bytes a line holds, what comes out is valid JSON in UTF-8 without a
// newline in it, and no key of a document stands there twice: of several with one
// name the last counts. What is not UTF-8 becomes U+FFFD.
//
// Lines become documents in one pass: eight bytes at a time are copied and looked
// at, and nothing is allocated but room in the caller's buffer.
package scrape

import (
	"bytes"
	"errors"
	"time"
)

// Format is what lines look like.
type Format int

// The formats.
const (
	Auto   Format = iota // JSON if the first byte that is no space is {, else Logfmt
	Logfmt               // key=value pairs, as github.com/go-logfmt/logfmt reads them; a line without any = is text
	JSON                 // an object, as RFC 8259 has it, a line
)

// Invalid says what happens to a line that is not of the format, or is longer
// than MaxLine.
type Invalid int

// The values of Invalid.
const (
	Wrap Invalid = iota // it becomes the message of a document
	Echo                // it is given to Options.Echo as it is
	Drop                // it is left out
)

// Options say how lines are converted. The zero value is useful.
type Options struct {
	Format     Format
	Invalid    Invalid
	Echo       func(line []byte) // gets invalid lines without their newline; they are valid during the call. Needed with Echo only
	IgnoreKeys []string          // top-level keys of lines that are left out
	Fields     []Field           // stand in every document, in this order, and win over a line's. Of several with the same key the last counts
	Rename     map[string]string // top-level keys of lines and what they become, beside time and msg, which can be given another name here
	Now        func() time.Time  // nil is time.Now
	MaxLine    int               // bytes without the newline; a longer line is invalid, and cut there. 0 is DefaultMaxLine
}

// DefaultMaxLine is how many bytes of a line are read unless Options say otherwise.
const DefaultMaxLine = 1 << 20

// Verdict is what became of a line.
type Verdict int

// The verdicts.
const (
	Converted Verdict = iota // a document was made of its content
	Blank                    // there was nothing in it
	Wrapped                  // it was invalid, and became a message
	Echoed                   // it was invalid, and given to Options.Echo
	Dropped                  // it was invalid, and left out
)

// Counts tells how many lines met each verdict.
type Counts struct {
	Lines, Converted, Blank, Wrapped, Echoed, Dropped int
	Long                                              int // of them: longer than MaxLine
}

// Add adds others to c.
func (c *Counts) Add(o Counts) {
	c.Lines += o.Lines
	c.Converted += o.Converted
	c.Blank += o.Blank
	c.Wrapped += o.Wrapped
	c.Echoed += o.Echoed
	c.Dropped += o.Dropped
	c.Long += o.Long
}

func (c *Counts) count(v Verdict) {
	c.Lines++
	switch v {
	case Converted:
		c.Converted++
	case Blank:
		c.Blank++
	case Wrapped:
		c.Wrapped++
	case Echoed:
		c.Echoed++
	case Dropped:
		c.Dropped++
	}
}

// A Converter converts lines. It keeps nothing of one for the next but memory,
// the text of the last time, and keys that it need not look up again where they
// come again, so lines of several streams can take turns. It is used by one
// goroutine at a time.
type Converter struct {
	format  Format
	invalid Invalid
	echo    func(line []byte)
	maxLine int

	frame   []byte // what every document begins with
	rules   *rules
	members members      // of the document that is being made
	keys    [32]knownKey // of the lines of logfmt before
	clock   clock
	timed   bool   // that document has its @timestamp
	padded  []byte // a line with room to read behind it
}

// New makes a converter. It fails if options contradict each other, and tells of
// all faults: a field or a new name that documents have of their own, a field that
// should be JSON and is not, invalid lines to be echoed to nobody.
func New(o Options) (*Converter, error) {
	c := &Converter{format: o.Format, invalid: o.Invalid, echo: o.Echo, maxLine: o.MaxLine, clock: clock{now: o.Now}}
	if c.maxLine <= 0 {
		c.maxLine = DefaultMaxLine
	}
	if c.clock.now == nil {
		c.clock.now = time.Now
	}
	var faults [3]error
	c.frame, faults[0] = makeFrame(o.Fields)
	c.rules, faults[1] = makeRules(o)
	if c.invalid == Echo && c.echo == nil {
		faults[2] = errors.New("cannot echo invalid lines: Options.Echo is not set")
	}
	if err := errors.Join(faults[:]...); err != nil {
		return nil, err
	}
	return c, nil
}

// AppendBlock converts all whole lines of a block and appends their documents,
// each with a newline, to dst. What follows the last newline is not consumed: it
// is the caller's to keep, and of a line that is to become longer than MaxLine no
// more than MaxLine+1 bytes have to be kept. Lines without a time of their own
// share that of the call.
func (c *Converter) AppendBlock(dst, block []byte) (out []byte, consumed int, counts Counts) {
	c.clock.tick()
	for {
		size := bytes.IndexByte(block[consumed:], '\n')
		if size < 0 {
			return dst, consumed, counts
		}
		if size > c.maxLine {
			counts.Long++
		}
		var v Verdict
		dst, v = c.line(dst, block[consumed:], size)
		counts.count(v)
		consumed += size + 1
	}
}

// Append converts one line, without its newline, appends one document and a
// newline to dst, and reports what became of the line. A newline within the line
// is like any other white space there.
func (c *Converter) Append(dst, line []byte) ([]byte, Verdict) {
	c.clock.tick()
	return c.line(dst, line, len(line))
}

// line converts the line that the first bytes of src are.
func (c *Converter) line(dst, src []byte, size int) ([]byte, Verdict) {
	if size > c.maxLine {
		return c.refuse(dst, src[:c.maxLine], true)
	}
	first := skipSpace(src, 0, size)
	if first == size {
		return dst, Blank
	}
	if out, ok := c.convert(dst, c.readable(src, size), size, first); ok {
		return out, Converted
	}
	return c.refuse(dst, src[:size], false)
}

// slack is how many bytes can be read behind a line, and written behind a
// document, so that both go by words.
const slack = 16

// readable returns the line that the first bytes of src are with at least slack
// bytes behind it, of which the first ends any token: a newline. If src does not end
// with the line, a newline has to follow already, as in a block.
func (c *Converter) readable(src []byte, size int) []byte {
	if len(src) >= size+slack {
		return src
	}
	c.padded = appendPadded(c.padded[:0], src[:size])
	src = c.padded
	if cap(c.padded) > maxKept {
		c.padded = nil
	}
	return src
}

// appendPadded appends a line with slack newlines behind it.
func appendPadded(dst, line []byte) []byte {
	return append(append(dst, line...), "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"...)
}

// maxKept is how much memory is kept from one line to the next.
const maxKept = 64 << 10

// convert appends a document of a line's content, or nothing if it has none that
// is of the format. first is the place of the line's first byte that is no space.
func (c *Converter) convert(dst, src []byte, size, first int) ([]byte, bool) {
	out, n := c.begin(dst, size)
	if c.format == JSON || c.format == Auto && src[first] == '{' {
		n = c.object(out, n, src, first, size)
	} else {
		n = c.pairs(out, n, src, first, size)
	}
	if n < 0 {
		return out[:len(dst)], false
	}
	return c.end(out, n), true
}

// refuse does with an invalid line, which may be cut, what the options say.
func (c *Converter) refuse(dst, line []byte, cut bool) ([]byte, Verdict) {
	switch c.invalid {
	case Wrap:
		return c.wrap(dst, line, cut), Wrapped
	case Echo:
		c.echo(line)
		return dst, Echoed
	default:
		return dst, Dropped
	}
}

// wrap appends a document whose message is the line. One that was cut says so.
func (c *Converter) wrap(dst, line []byte, cut bool) []byte {
	line = bytes.TrimSuffix(line, []byte("\r"))
	out, n := c.begin(dst, len(line))
	n += copy(out[n:], `,"`+messageKey+`":"`)
	n = copyText(out, n, c.readable(line, len(line)), len(line))
	n += copy(out[n:], `"`)
	if cut {
		n += copy(out[n:], `,"`+truncatedKey+`":true`)
	}
	return c.end(out, n)
}
