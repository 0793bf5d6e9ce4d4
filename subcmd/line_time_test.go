package subcmd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestLineTime(t *testing.T) {
	zone := time.FixedZone("", 3600)
	for text, want := range map[string]string{
		"2026-11-22T10:00:00Z up":                       "2026-11-22T10:00:00Z",
		"2026-11-22T10:00:00.123456789Z up":             "2026-11-22T10:00:00.123456789Z",
		"2026-11-22T10:00:00+02:00":                     "2026-11-22T08:00:00Z",
		"2026-11-22 10:00:00,500 INFO":                  "2026-11-22T09:00:00Z",
		"2026-11-22 10:00:00.5 INFO":                    "2026-11-22T09:00:00.5Z",
		"2026/11/22 10:00:00 main.go:1: up":             "2026-11-22T09:00:00Z",
		`time="2026-11-22T10:00:00Z" level=info`:        "2026-11-22T10:00:00Z",
		"time=2026-11-22T10:00:00.000+01:00 level=INFO": "2026-11-22T09:00:00Z",
		`{"time":"2026-11-22T10:00:00Z","msg":"up"}`:    "2026-11-22T10:00:00Z",
		"[2026-11-22 10:00:00] up":                      "2026-11-22T09:00:00Z",
		"2026-11-22T10:00:00":                           "2026-11-22T09:00:00Z",
		"":                                              "", "up": "", "2026-11-22": "", "2026-99-22T10:00:00Z": "", "1234567890123456789012345": "", "\tat main.go:1": "",
	} {
		got := ""
		if at, ok := lineTime([]byte(text), zone); ok {
			got = at.UTC().Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzLineTime(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-22T10:00:00Z"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		before := string(line)
		lineTime(line, time.UTC)
		if string(line) != before {
			t.Error("the line was changed")
		}
	})
}

// Lines of a file count by their own times, and go with the line before if they
// have none.
func TestTailSince(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	since := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name, data string
		n          int
		want, note string
	}{
		{"later ones", "2026-11-22 09:59:59 a\n\tof a\n2026-11-22 10:00:00 b\n\tof b\n", -1, "2026-11-22 10:00:00 b|\tof b", ""},
		{"the last of them", "2026-11-22 10:00:00 b\n2026-11-22 10:00:01 c\n", 1, "2026-11-22 10:00:01 c", ""},
		{"none", "2026-11-22 09:00:00 a\n", -1, "", ""},
		{"an empty file", "", -1, "", ""},
		{"no times", "a\nb\n", -1, "", "begin with no time"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.data), 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Chtimes(path, since, since)
			lines, after, note, err := fileSource{path: path}.tail(test.n, since)
			var got []string
			for _, l := range lines {
				got = append(got, string(l.Text))
			}
			if strings.Join(got, "|") != test.want || !strings.Contains(note, test.note) || (note == "") != (test.note == "") || err != nil {
				t.Errorf("got %q, note %q, %v", got, note, err)
			}
			if after.Read[0] != uint64(len(test.data)) {
				t.Errorf("place %v", after)
			}
		})
	}
	if err := os.Chtimes(path, since, since.Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if lines, _, note, err := (fileSource{path: path}).tail(-1, since); len(lines) > 0 || note != "" || err != nil {
		t.Errorf("of a file that nobody wrote to since: %v, %q, %v", lines, note, err)
	}
}

func TestParseSince(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 30, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"10m": "2026-11-22T12:20:00+01:00", "1h30m": "2026-11-22T11:00:00+01:00", "10:00": "2026-11-22T10:00:00+01:00",
		"10:00:05": "2026-11-22T10:00:05+01:00", "2026-11-21": "2026-11-21T00:00:00+01:00", "2026-11-22 10:00": "2026-11-22T10:00:00+01:00",
		"2026-11-22T10:00:00Z": "2026-11-22T10:00:00Z", "2026-11-22 10:00:01": "2026-11-22T10:00:01+01:00",
		"-5m": "", "soon": "", "25:00": "",
	} {
		at, err := parseSince(text, now)
		got := at.Format(time.RFC3339)
		if err != nil {
			got = ""
			if !strings.Contains(err.Error(), fmt.Sprintf("--since %q is no time (accepted:", text)) {
				t.Errorf("%q: %v", text, err)
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
