package output

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// Place is how far somebody has read what an instance prints: in a [Log], or in
// a file. It is a value that can leave the process and come back later, also to
// another process that goes on with the same log ([OpenLog]) or file. The zero
// Place stands before everything.
type Place struct {
	// Source is the log or the file in which the place is. A file keeps its number
	// when it is renamed.
	Source uint64
	// Read counts the bytes of stdout and of stderr before the place; in a file,
	// which knows no streams, those of the first are all.
	Read [2]uint64
}

// String returns the place as [ParsePlace] reads it: hexadecimal numbers and dots.
func (p Place) String() string {
	b := make([]byte, 0, 40)
	b = append(strconv.AppendUint(b, p.Source, 16), '.')
	b = append(strconv.AppendUint(b, p.Read[0], 16), '.')
	return string(strconv.AppendUint(b, p.Read[1], 16))
}

// ParsePlace is the reverse of [Place.String].
func ParsePlace(text string) (p Place, err error) {
	var rest string
	n, _ := fmt.Sscanf(text+" ", "%x.%x.%x%s", &p.Source, &p.Read[0], &p.Read[1], &rest)
	if n != 3 || p.String() != text {
		return Place{}, fmt.Errorf("%q is not a place in what a program prints", text)
	}
	return p, nil
}

// begun reports whether anything comes before the place.
func (p Place) begun() bool { return p.Read != [2]uint64{} }

// newSource returns a number that no other log has.
func newSource() uint64 { return rand.Uint64() | 1 }

// Resume returns the cursor from which [Log.Follow] goes on at a place that was
// reached before, perhaps in another process. What is no longer kept after it is
// told of by a line with Lost set. A place in another log, of which nobody can tell
// how much followed it, stands before all that is kept.
func (l *Log) Resume(p Place, stream Stream) Cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Cursor{seq: l.first(), seen: l.dropped, stream: stream}
	if !p.begun() {
		p.Source = l.source
	}
	if p.Source != l.source || p.Read[0] > l.written[0] || p.Read[1] > l.written[1] {
		c.lost = UnknownLoss
		return c
	}
	for s, read := range p.Read {
		if skipped := l.dropped[s]; read >= skipped {
			c.skip[s] = read - skipped
		} else if stream.has(Stream(s + 1)) {
			c.lost += int64(skipped - read)
		}
	}
	return c
}

// Place returns the place of a cursor of this log.
func (l *Log) Place(c Cursor) Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.place(l.source)
}

func (c Cursor) place(source uint64) Place {
	return Place{source, [2]uint64{c.seen[0] + c.skip[0], c.seen[1] + c.skip[1]}}
}
