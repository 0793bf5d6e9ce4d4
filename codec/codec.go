// Package codec turns values into bytes and back, for what one pm writes and
// another reads: the records of a journal, and the frames between a keeper and
// its worker. Numbers are varints and strings carry their length, so that a
// record costs nanoseconds and any byte can stand in it. There are no field
// names: who writes and who reads agree on the order, and on a number of version
// in front. It never interprets what it carries.
package codec

import (
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Encoder appends values to a record. The zero value is an empty record.
type Encoder []byte

// Uint appends an unsigned number.
func (e *Encoder) Uint(n uint64) { *e = binary.AppendUvarint(*e, n) }

// Int appends a number.
func (e *Encoder) Int(n int) { *e = binary.AppendVarint(*e, int64(n)) }

// Bool appends a truth value.
func (e *Encoder) Bool(b bool) {
	if b {
		*e = append(*e, 1)
		return
	}
	*e = append(*e, 0)
}

// String appends a string of any bytes.
func (e *Encoder) String(s string) {
	e.Uint(uint64(len(s)))
	*e = append(*e, s...)
}

// Bytes appends what [Decoder.String] takes as well.
func (e *Encoder) Bytes(b []byte) {
	e.Uint(uint64(len(b)))
	*e = append(*e, b...)
}

// Strings appends a list of strings.
func (e *Encoder) Strings(list []string) {
	e.Uint(uint64(len(list)))
	for _, s := range list {
		e.String(s)
	}
}

// Time appends a moment, by the wall clock and by the monotonic one.
func (e *Encoder) Time(t time.Time) {
	if t.IsZero() {
		*e = binary.AppendVarint(*e, math.MinInt64)
		return
	}
	z := zero()
	*e = binary.AppendVarint(*e, t.UnixNano())
	*e = binary.AppendVarint(*e, int64(z.reading+t.Sub(z.at)))
}

// Wall appends a moment by the wall clock alone: what people are told of it.
func (e *Encoder) Wall(t time.Time) {
	if t.IsZero() {
		*e = binary.AppendVarint(*e, math.MinInt64)
		return
	}
	*e = binary.AppendVarint(*e, t.UnixNano())
}

// Monotonic reads the clock that all processes of the machine share and that no
// one can set: CLOCK_MONOTONIC of clock_gettime(2).
func Monotonic() time.Duration {
	z := zero()
	return z.reading + time.Since(z.at)
}

// zero is one moment by both clocks. Package time reads the same clock without a
// system call, but does not tell what it reads.
var zero = sync.OnceValue(func() (z struct {
	at      time.Time
	reading time.Duration
},
) {
	var now unix.Timespec
	z.at = time.Now()
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it cannot fail for this clock
	z.reading = time.Duration(now.Nano())
	return z
})

// Decoder takes values from a record, in the order in which they were appended.
// After the first fault every value is zero, so that only [Decoder.Err] has to
// be looked at.
type Decoder struct {
	// Rebooted says that the record was written before the machine last started,
	// so that its monotonic clock means nothing.
	Rebooted bool

	rest []byte
	err  error
}

// NewDecoder returns a decoder of a record, which it does not copy and which
// must not change.
func NewDecoder(record []byte) *Decoder { return &Decoder{rest: record} }

// errShort is the one fault there is.
var errShort = errors.New("the record ends too early, or is of another kind")

// Err returns the first fault.
func (d *Decoder) Err() error { return d.err }

// More reports whether anything is left.
func (d *Decoder) More() bool { return len(d.rest) > 0 }

func (d *Decoder) fail() {
	d.err = errShort
	d.rest = nil
}

// Uint takes an unsigned number.
func (d *Decoder) Uint() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

func (d *Decoder) varint() int64 {
	n, size := binary.Varint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// Int takes a number.
func (d *Decoder) Int() int { return int(d.varint()) }

// Bool takes a truth value.
func (d *Decoder) Bool() bool { return d.Uint() != 0 }

// String takes a string.
func (d *Decoder) String() string {
	n := d.Uint()
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}

// Strings takes a list of strings; an empty one is nil.
func (d *Decoder) Strings() []string { return d.StringsLike(nil) }

// StringsLike takes a list of strings, of which many stand at the same place of
// another list as well: these two then share, and if all are equal, it is the
// other list. So what comes thousands of times takes memory once. Neither may be
// changed.
func (d *Decoder) StringsLike(other []string) []string {
	n := d.Uint()
	if n > uint64(len(d.rest)) { // each takes a byte at least
		d.fail()
		return nil
	}
	if n == 0 {
		return nil
	}
	if n == uint64(len(other)) && d.all(other) {
		return other
	}
	list := make([]string, n)
	for i := range list {
		if i < len(other) && d.next(other[i]) {
			list[i] = other[i]
		} else {
			list[i] = d.String()
		}
	}
	return list
}

// all takes the strings of a list, if they are what comes next.
func (d *Decoder) all(list []string) bool {
	begin := *d
	for _, s := range list {
		if !d.next(s) {
			*d = begin
			return false
		}
	}
	return true
}

// next takes a string, if it is what comes next.
func (d *Decoder) next(s string) bool {
	begin := *d
	n := d.Uint()
	if d.err != nil || n > uint64(len(d.rest)) || string(d.rest[:n]) != s {
		*d = begin
		return false
	}
	d.rest = d.rest[n:]
	return true
}

// Wall takes a moment that was appended by [Encoder.Wall], in UTC.
func (d *Decoder) Wall() time.Time {
	wall := d.varint()
	if d.err != nil || wall == math.MinInt64 {
		return time.Time{}
	}
	return time.Unix(0, wall).UTC()
}

// Time takes a moment. It has a monotonic reading, by which it can be compared
// with moments of this process, unless the machine was Rebooted meanwhile.
func (d *Decoder) Time() time.Time {
	wall := d.varint()
	if d.err != nil || wall == math.MinInt64 {
		return time.Time{}
	}
	monotonic := time.Duration(d.varint())
	if d.err != nil {
		return time.Time{}
	}
	if d.Rebooted {
		return time.Unix(0, wall)
	}
	return time.Now().Add(monotonic - Monotonic())
}
