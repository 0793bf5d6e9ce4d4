package subcmd

import (
	"bytes"
	"os"
	"slices"
	"time"

	"pm.example/output"
)

// tailSince returns the last n lines of a file since a time. pm was not there when
// the program wrote them, so it goes by the time that lines begin with; a line
// without belongs to the one before. In a file without any there is no telling, and
// the note says so.
func (f fileSource) tailSince(n int, since time.Time) (lines []output.Line, after output.Place, note string, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, after, "", err
	}
	lines, after, err = output.TailFile(f.path, -1)
	if err != nil || info.ModTime().Before(since) {
		return nil, after, "", err
	}
	timed := func(l output.Line) bool { _, ok := lineTime(l.Text, since.Location()); return ok }
	if len(lines) > 0 && !slices.ContainsFunc(lines, timed) {
		return nil, after, "lines of " + f.path + " begin with no time: those since a time cannot be told from the others", nil
	}
	from := slices.IndexFunc(lines, func(l output.Line) bool {
		at, ok := lineTime(l.Text, since.Location())
		return ok && !at.Before(since)
	})
	if from < 0 {
		return nil, after, "", nil
	}
	lines = lines[from:]
	if n >= 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return lines, after, "", nil
}

// lineStarts is what may stand before the time of a line.
var lineStarts = [][]byte{[]byte("time="), []byte(`ts=`), []byte(`"`), []byte(`{"time":"`), []byte(`{"@timestamp":"`), []byte(`{"ts":"`), []byte("[")}

// lineLayouts are the forms of times that lines begin with.
var lineLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05", "2006/01/02 15:04:05", "2006-01-02T15:04:05"}

// lineTime returns the time that a line begins with. One that names no zone is
// meant in the given one.
func lineTime(line []byte, zone *time.Location) (time.Time, bool) {
	for range 2 { // time="2026-…
		for _, start := range lineStarts {
			line = bytes.TrimPrefix(line, start)
		}
	}
	const shortest, longest = len("2006-01-02T15:04:05"), len("2006-01-02T15:04:05.999999999+00:00")
	if len(line) < shortest || line[0] < '0' || line[0] > '9' {
		return time.Time{}, false
	}
	end := shortest + bytes.IndexFunc(append(bytes.Clone(line[shortest:min(len(line), longest)]), ' '), notOfTime)
	for _, text := range []string{string(line[:end]), string(line[:shortest])} {
		for _, layout := range lineLayouts {
			if at, err := time.ParseInLocation(layout, text, zone); err == nil {
				return at, true
			}
		}
	}
	return time.Time{}, false
}

// notOfTime reports whether a letter ends the fraction and the zone of a time.
func notOfTime(r rune) bool {
	return (r < '0' || r > '9') && r != '.' && r != 'Z' && r != '+' && r != '-' && r != ':'
}
