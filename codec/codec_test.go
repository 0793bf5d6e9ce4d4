package codec

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
	"unsafe"
)

func TestRoundTrip(t *testing.T) {
	now := time.Now()
	var e Encoder
	e.Uint(1 << 63)
	e.Int(-41)
	e.Bool(true)
	e.Bool(false)
	e.String("a\x00\xffb")
	e.Strings([]string{"", "x"})
	e.Strings(nil)
	e.Time(now)
	e.Time(time.Time{})
	e.Wall(now)
	e.Wall(time.Time{})

	d := NewDecoder(e)
	if n := d.Uint(); n != 1<<63 {
		t.Errorf("Uint: %d", n)
	}
	if n := d.Int(); n != -41 {
		t.Errorf("Int: %d", n)
	}
	if !d.Bool() || d.Bool() {
		t.Error("Bool")
	}
	if s := d.String(); s != "a\x00\xffb" {
		t.Errorf("String: %q", s)
	}
	if l := d.Strings(); !slices.Equal(l, []string{"", "x"}) {
		t.Errorf("Strings: %q", l)
	}
	if l := d.Strings(); l != nil {
		t.Errorf("Strings of none: %q", l)
	}
	if at := d.Time(); at.Sub(now).Abs() > 100*time.Microsecond {
		t.Errorf("Time: %v, want about %v", at, now)
	}
	if at := d.Time(); !at.IsZero() {
		t.Errorf("zero Time: %v", at)
	}
	if at := d.Wall(); at != now.Round(0).UTC() {
		t.Errorf("Wall: %v, want %v", at, now)
	}
	if at := d.Wall(); !at.IsZero() {
		t.Errorf("zero Wall: %v", at)
	}
	if d.More() || d.Err() != nil {
		t.Errorf("left over: %v, %v", d.More(), d.Err())
	}
}

func TestTimeAfterReboot(t *testing.T) {
	now := time.Now()
	var e Encoder
	e.Time(now)
	d := NewDecoder(e)
	d.Rebooted = true
	if at := d.Time(); !at.Equal(now) || at.String() != now.Round(0).String() {
		t.Errorf("%v, want %v by the wall clock only", at, now)
	}
}

// Whatever bytes come, a decoder gives an error or values, and never asks for
// more memory than it was given bytes.
func FuzzDecoder(f *testing.F) {
	var e Encoder
	e.Strings([]string{"a", "b"})
	e.Int(7)
	f.Add([]byte(e), []byte{4, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}, []byte{0, 1, 2, 3, 4, 5})
	f.Fuzz(func(t *testing.T, record, kinds []byte) {
		d := NewDecoder(bytes.Clone(record))
		for _, kind := range kinds {
			switch kind % 6 {
			case 0:
				d.Uint()
			case 1:
				d.Int()
			case 2:
				d.Bool()
			case 3:
				if s := d.String(); len(s) > len(record) {
					t.Errorf("%d bytes of %d", len(s), len(record))
				}
			case 4:
				other := *d
				l := d.StringsLike([]string{"a", "b"})
				if len(l) > len(record) {
					t.Errorf("%d strings of %d bytes", len(l), len(record))
				}
				if plain := other.Strings(); !slices.Equal(l, plain) || d.Err() != other.Err() || d.More() != other.More() {
					t.Errorf("%q instead of %q", l, plain)
				}
			case 5:
				d.Time()
			}
		}
		if d.Err() != nil && d.More() {
			t.Error("values after a fault")
		}
	})
}

// A clock that was set since a moment was written down does not move the moment:
// how long ago it was is told by the clock that nobody can set.
func TestTimeAfterTheClockWasSet(t *testing.T) {
	for _, jump := range []time.Duration{-24 * time.Hour, time.Hour, 10 * 365 * 24 * time.Hour} {
		var e Encoder
		at := time.Now().Add(-5 * time.Second)
		e.Time(at)
		d := NewDecoder(e)
		d.varint()
		mono := d.varint()
		set := binary.AppendVarint(nil, at.Add(jump).UnixNano())
		got := NewDecoder(binary.AppendVarint(set, mono)).Time()
		if ago := time.Since(got); ago < 5*time.Second || ago > time.Minute {
			t.Errorf("the clock was set by %v: it was %v ago", jump, ago)
		}
		if off := got.Sub(at).Abs(); off > time.Second {
			t.Errorf("the clock was set by %v: off by %v", jump, off)
		}
	}
}

func TestStringsLike(t *testing.T) {
	env := []string{"HOME=/", "PATH=/bin", "N=1"}
	for _, list := range [][]string{
		nil, env, {"HOME=/", "PATH=/bin", "N=2"}, {"HOME=/"}, {"PATH=/bin", "HOME=/", "N=1", "M=1"}, {"", "", ""},
	} {
		var e Encoder
		e.Strings(list)
		e.Bytes([]byte("end"))
		d := NewDecoder(e)
		got := d.StringsLike(env)
		if !slices.Equal(got, list) || d.String() != "end" || d.Err() != nil {
			t.Errorf("%q came back as %q (%v)", list, got, d.Err())
		}
		for i, s := range got {
			if i < len(env) && s == env[i] && unsafe.StringData(s) != unsafe.StringData(env[i]) {
				t.Errorf("%q does not share %q", list, s)
			}
		}
	}
	var e Encoder
	e.Strings(env)
	if got := NewDecoder(e).StringsLike(env); &got[0] != &env[0] {
		t.Error("an equal list is another one")
	}
	if d := NewDecoder(e[:len(e)-1]); d.StringsLike(env) == nil || d.Err() == nil {
		t.Error("a list that ends too early is no fault")
	}
}
