package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Logs says how files are written that a program prints into.
type Logs struct {
	Rotate    int64         // bytes; 0: never by size
	RotateAge time.Duration // length of a period; 0: never by age
	Files     int           // rotated files that are kept; default 5
	Total     int64         // bytes of them and the file; 0: no matter
	// Timestamps is the time zone of those, as [time.LoadLocation] knows it, "local",
	// or "off".
	Timestamps string
	Prefix     string // {instance} and {stream} are replaced; empty: none
	Format     string // "raw" or "json"
	Compress   bool   // rotated files
	OnFull     string // "block" or "drop"
	Scrape     Scrape
}

// passes reports whether output has to pass through pm on its way to a file.
func (l *Logs) passes() bool {
	return l.Rotate > 0 || l.RotateAge > 0 || l.stamped() || l.Prefix != "" || l.Format == "json" || l.OnFull == "drop"
}

// stamped reports whether lines get the time.
func (l *Logs) stamped() bool { return l.Timestamps != "off" && l.Timestamps != "" }

// Zone returns the time zone of Timestamps; nil: they are off.
func (l *Logs) Zone() *time.Location {
	if !l.stamped() {
		return nil
	}
	zone, err := loadZone(l.Timestamps)
	if err != nil { // it was there when the file was read
		return time.UTC
	}
	return zone
}

// loadZone finds a time zone, in which "local" is the machine's.
func loadZone(name string) (*time.Location, error) {
	if strings.EqualFold(name, "local") {
		return time.Local, nil
	}
	return time.LoadLocation(name)
}

// zonesAccept is told for time zones.
const zonesAccept = "off, local, UTC, or a zone such as Europe/Warsaw"

// zoneCodec is a time zone, or off.
var zoneCodec = codec[string]{
	name: "time zone", accepted: zonesAccept, schema: schemaText,
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.word(n)
		if !ok || s == "off" {
			return s, ok
		}
		if _, err := loadZone(s); err != nil || s == "" {
			r.fault(n, "not a time zone that this machine knows", zonesAccept)
			return "", false
		}
		return s, true
	},
	show: showText,
}

// ThroughPM reports whether pm writes the program's output to where it goes, a
// value of Stdout or Stderr, because it has to look at it. Otherwise the program
// does so itself.
func (p *Program) ThroughPM(where string) bool {
	switch word, _ := OutputTarget(where); {
	case word == "syslog" || word == "journald":
		return true
	case word == "inherit" || IsFile(where):
		return p.Logs.passes()
	}
	return false
}

// OutputTarget splits a value of Stdout or Stderr that is one of the words inherit,
// syslog and journald; the latter two may stand before the path of a socket, as
// "syslog:/run/log". The word is empty for all others.
func OutputTarget(where string) (word, path string) {
	word, path, _ = strings.Cut(where, ":")
	switch {
	case word == "inherit" && where == word, word == "syslog", word == "journald":
		return word, path
	}
	return "", ""
}

// IsFile reports whether a value of Stdout or Stderr is the path of a file.
func IsFile(where string) bool {
	word, _ := OutputTarget(where)
	return where != "" && where != "discard" && where != "stdout" && word == ""
}

// rerouted reports whether output is to pass through pm that has not done so, or the
// other way round: only a new process can have the pipe for it, or the file, and a
// file must not have two writers.
func rerouted(old, updated *Program) bool {
	return old.ThroughPM(old.Stdout) != updated.ThroughPM(updated.Stdout) ||
		old.ThroughPM(old.Stderr) != updated.ThroughPM(updated.Stderr)
}

// logsLack returns what is wrong with how a program's files are written.
func logsLack(p *Program) []Problem {
	l := &p.Logs
	if l.Format == "json" && l.Prefix != "" {
		return []Problem{{Key: "logs.prefix", Value: l.Prefix, Message: "no line of JSON can have it; leave logs.prefix or logs.format out"}}
	}
	if l.Compress && l.Rotate == 0 && l.RotateAge == 0 {
		return []Problem{{Key: "logs.compress", Value: "true", Message: "nothing is rotated; set logs.rotate or logs.rotate_age"}}
	}
	if l.Total > 0 && l.Total < l.Rotate {
		return []Problem{{
			Key: "logs.total", Value: formatSize(l.Total), Message: "less than one file, logs.rotate, may have: " + formatSize(l.Rotate),
		}}
	}
	return nil
}

// sizesAccept is told for sizes.
const sizesAccept = "bytes, as 512K, 10M or 1G, which count by 1024"

// sizeCodec is an amount of bytes; 0 is none.
var sizeCodec = codec[int64]{
	name: "size", accepted: sizesAccept, schema: schemaNumber("integer"),
	read: func(r *reader, n *node) (int64, bool) {
		s, ok := r.word(n)
		if !ok {
			return 0, false
		}
		size, err := parseSize(s)
		if err != nil {
			r.fault(n, err.Error(), sizesAccept)
		}
		return size, err == nil
	},
	show: func(size int64) any {
		if size == 0 {
			return nil
		}
		return formatSize(size)
	},
}

func parseSize(s string) (int64, error) {
	n, err := parseAmount(strings.TrimSuffix(strings.ToUpper(s), "B"))
	switch {
	case err != nil && err.Error() != "not a limit":
		return 0, err
	case err != nil || n == Unlimited:
		return 0, errors.New("not a size")
	case n > math.MaxInt64/2:
		return 0, errors.New("out of range")
	}
	return int64(n), nil
}

// formatSize is the shortest way to write a size.
func formatSize(size int64) string {
	for shift := 3; shift > 0; shift-- {
		if unit := int64(1) << (10 * shift); size%unit == 0 && size > 0 {
			return strconv.FormatInt(size/unit, 10) + "BKMG"[shift:shift+1]
		}
	}
	return strconv.FormatInt(size, 10)
}

// ageCodec is the length of a period, or 0 for none.
var ageCodec = codec[time.Duration]{
	name: "duration", accepted: agesAccept, schema: schemaNumber("number"),
	read: func(r *reader, n *node) (time.Duration, bool) {
		d, ok := durationCodec.read(r, n)
		if ok && d > 0 && d < time.Second {
			r.fault(n, "too short", agesAccept)
			return 0, false
		}
		return d, ok
	},
	show: func(d time.Duration) any {
		if d == 0 {
			return nil
		}
		return formatDuration(d)
	},
}

// agesAccept is told for the length of periods.
const agesAccept = "1s to 8760h, as 24h, 30m or plain seconds, or 0"
