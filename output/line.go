package output

import (
	"bytes"
	"fmt"
	"time"
)

// MaxLine is the length in bytes of the longest line that is handed out in one
// piece.
const MaxLine = 64 << 10

// Stream says which of its two outputs a program wrote to.
type Stream uint8

// The streams. Both stands for either where lines are asked for, and for
// "not known" in a line read from a file.
const (
	Both Stream = iota
	Stdout
	Stderr
)

// String returns "stdout", "stderr", or nothing for Both.
func (s Stream) String() string {
	switch s {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	}
	return ""
}

// ParseStream is the reverse of [Stream.String].
func ParseStream(name string) (Stream, error) {
	for s := Both; s <= Stderr; s++ {
		if s.String() == name {
			return s, nil
		}
	}
	return Both, fmt.Errorf("unknown stream %q: it is stdout, stderr, or empty for both", name)
}

// has reports whether someone who asked for s wants t.
func (s Stream) has(t Stream) bool { return s == Both || s == t }

// Line is one line of output, a part of one, or a gap.
//
// Written one after the other, each followed by a newline unless it is Partial,
// the lines of a stream give the bytes that the program wrote.
type Line struct {
	// Time is when the first byte was read; zero in lines of files.
	Time   time.Time
	Stream Stream
	// Seq numbers the first byte: by the log's own count, which goes through
	// both streams and never starts again, or by its place in the file.
	Seq uint64
	// Text is the line without its newline. It belongs to the receiver.
	Text []byte
	// Partial says that no newline was read after Text: the line is longer than
	// MaxLine, or not finished yet. The next line of the stream goes on where
	// this one stops, unless Ended is set.
	Partial bool
	// Ended says that a Partial line will stay so, because its writer is gone
	// or its file was cut short.
	Ended bool
	// Lost, if not 0, is the number of bytes missing at this point, since the
	// reader was too slow to get them, or [UnknownLoss]. Text then says so in
	// words, and no stream is named.
	Lost int64
	// Place is how far one has read who has read this line: from there on a reader
	// that was interrupted goes on. It is set where lines are followed.
	Place Place
}

// UnknownLoss is the Lost of a line where nobody can tell how much is missing, if
// anything.
const UnknownLoss int64 = -1

// gap returns the line that stands for n lost bytes.
func gap(n int64) Line {
	if n == UnknownLoss {
		return Line{Text: []byte("[output may be missing here]"), Lost: n}
	}
	return Line{Text: fmt.Appendf(nil, "[%d bytes of output are missing here]", n), Lost: n}
}

// last returns the last n lines, or all if n is negative. All parts of a long
// line count as one.
func last(lines []Line, n int) []Line {
	if n < 0 {
		return lines
	}
	var seen [Stderr + 1]bool
	for i := len(lines) - 1; i >= 0; i-- {
		line := lines[i]
		ends := !line.Partial || line.Ended || !seen[line.Stream]
		seen[line.Stream] = true
		if !ends {
			continue
		}
		if n == 0 {
			return lines[i+1:]
		}
		n--
	}
	return lines
}

// splitter cuts the bytes of one stream into lines.
type splitter struct {
	stream Stream
	start  []byte    // the line so far, never longer than MaxLine
	at     time.Time // when its first byte was read
	seq    uint64    // the number of its first byte
	read   uint64    // bytes of the stream that were handed out
	emit   func(Line) error
}

// add takes the next bytes of the stream, the first of which was read at the
// given time and has the number seq. Lines keep referring to data.
func (s *splitter) add(data []byte, at time.Time, seq uint64) error {
	for len(data) > 0 {
		if len(s.start) == 0 {
			s.at, s.seq = at, seq
		}
		room := MaxLine - len(s.start)
		n := bytes.IndexByte(data[:min(len(data), room+1)], '\n')
		if n < 0 && len(data) <= room {
			s.start = append(s.start, data...)
			return nil
		}
		took, partial := n+1, false
		if n < 0 {
			n, took, partial = room, room, true
		}
		if err := s.hand(data[:n:n], partial, false); err != nil {
			return err
		}
		data, seq = data[took:], seq+uint64(took)
	}
	return nil
}

// hand hands out the line so far and its rest.
func (s *splitter) hand(rest []byte, partial, ended bool) error {
	text := rest
	if len(s.start) > 0 {
		text = append(s.start, rest...)
	}
	s.start = nil
	s.read += uint64(len(text))
	if !partial {
		s.read++ // the newline
	}
	return s.emit(Line{Time: s.at, Stream: s.stream, Seq: s.seq, Text: text, Partial: partial, Ended: ended})
}

// flush hands out the line so far, if there is one, as Partial.
func (s *splitter) flush(ended bool) error {
	if len(s.start) == 0 {
		return nil
	}
	return s.hand(nil, true, ended)
}
