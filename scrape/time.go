package scrape

import "time"

// clock tells the time to documents whose lines have none, in milliseconds. It is
// read once for a block of lines, and only if one of them asks.
type clock struct {
	now     func() time.Time
	running bool  // buffer holds the time of this block
	shown   int64 // milliseconds since 1970, in buffer
	buffer  []byte
}

// tick says that time has passed.
func (c *clock) tick() { c.running = false }

// text returns the time as it stands in a document, in UTC. It is valid until the
// next call.
func (c *clock) text() []byte {
	if c.running {
		return c.buffer
	}
	c.running = true
	now := c.now()
	if ms := now.UnixMilli(); ms != c.shown || c.buffer == nil {
		c.shown = ms
		c.buffer = now.UTC().AppendFormat(c.buffer[:0], "2006-01-02T15:04:05.000Z07:00")
	}
	return c.buffer
}

// isTimeString reports whether a JSON value is a string with a time that
// Logstash understands for certain: RFC 3339 with T and a zone, whose colon may be
// left out.
func isTimeString(value []byte) bool {
	if len(value) < len(`"2006-01-02T15:04:05Z"`) || value[0] != '"' {
		return false
	}
	v := value[1 : len(value)-1]
	return dateShape.fits(v) && hourShape.fits(v[8:]) && clockShape.fits(v[11:]) &&
		isDate(v) && within(v[11:], 0, 23) && within(v[14:], 0, 59) && within(v[17:], 0, 59) && isZone(skipFraction(v[19:]))
}

// shape is how eight bytes look: at each place a digit, or a certain byte.
type shape struct{ text, digits uint64 }

// The shapes of the parts of a time, which overlap.
var (
	dateShape  = newShape("0000-00-")
	hourShape  = newShape("00T00:00")
	clockShape = newShape("00:00:00")
)

// newShape makes a shape of its text, where 0 is any digit.
func newShape(text string) (s shape) {
	s.text = load([]byte(text), 0)
	for i, b := range []byte(text) {
		if b == '0' {
			s.digits |= 9 << (8 * i)
		}
	}
	return s
}

// fits reports whether the first eight bytes of v are of the shape: by exclusive
// or each becomes 0 or, for a digit, at most 9. To what is more, the sum adds up to
// the highest bit, as long as nothing is carried: not to what has that bit already.
func (s shape) fits(v []byte) bool {
	distance := load(v, 0) ^ s.text
	return (distance|(distance+0x7f*each-s.digits))&tops == 0
}

// isDate reports whether there is a day that v begins with.
func isDate(v []byte) bool {
	if !within(v[5:], 1, 12) || !within(v[8:], 1, 31) {
		return false
	}
	return within(v[8:], 1, 28) || time.Date(year(v), time.Month(two(v[5:])), two(v[8:]), 0, 0, 0, 0, time.UTC).Day() == two(v[8:])
}

func year(v []byte) int { return 100*two(v) + two(v[2:]) }

// skipFraction returns what follows the fraction of a second, if there is one.
func skipFraction(v []byte) []byte {
	if len(v) < 2 || v[0] != '.' || !isDigit(v[1]) {
		return v
	}
	v = v[1:]
	for len(v) > 0 && isDigit(v[0]) {
		v = v[1:]
	}
	return v
}

// isZone reports whether v is Z, +01:00 or +0100.
func isZone(v []byte) bool {
	if len(v) == 1 {
		return v[0] == 'Z'
	}
	if len(v) < 5 || v[0] != '+' && v[0] != '-' {
		return false
	}
	hours, minutes := v[1:3], v[3:]
	if minutes[0] == ':' {
		minutes = minutes[1:]
	}
	return len(minutes) == 2 && areDigits(hours) && areDigits(minutes) && within(hours, 0, 18) && within(minutes, 0, 59)
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func areDigits(v []byte) bool { return isDigit(v[0]) && isDigit(v[1]) }

// two decodes the two digits that v begins with.
func two(v []byte) int { return int(v[0]-'0')*10 + int(v[1]-'0') }

func within(v []byte, least, most int) bool { n := two(v); return n >= least && n <= most }
