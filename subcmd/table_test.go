package subcmd

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"pm.example/socket"
)

func TestWriteTable(t *testing.T) {
	rows := [][]string{
		{"NAME", "STATE", "DETAIL"},
		{"web", "RUNNING", ""},
		{"größer", "FATAL", "exited too quickly (exit 3)"},
		{"a", "EXITED", "a\ttab, a\nnewline, an \x1b[31mescape"},
	}
	for width, want := range map[int]string{
		0: `NAME    STATE    DETAIL
web     RUNNING
größer  FATAL    exited too quickly (exit 3)
a       EXITED   a\ttab, a\nnewline, an \x1b[31mescape
`,
		24: `NAME    STATE    DETAIL
web     RUNNING
größer  FATAL    exited…
a       EXITED   a\ttab…
`,
	} {
		var out bytes.Buffer
		if err := writeTable(&out, rows, width); err != nil || out.String() != want {
			t.Errorf("width %d: %v, got\n%swant\n%s", width, err, out.String(), want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		line  string
		width int
		want  string
	}{
		{"status", 0, "status"},
		{"status", -1, "status"},
		{"status", 6, "status"},
		{"status", 5, "stat…"},
		{"größe", 4, "grö…"},
		{"status", 1, "…"},
		{"", 3, ""},
	} {
		if got := cut(test.line, test.width); got != test.want {
			t.Errorf("%q at %d: got %q, want %q", test.line, test.width, got, test.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                               "0s",
		499 * time.Millisecond:          "0s",
		59*time.Second + 400e6:          "59s",
		59*time.Second + 500e6:          "1m00s",
		125 * time.Second:               "2m05s",
		time.Hour:                       "1h00m",
		4*time.Hour + 3*time.Minute:     "4h03m",
		23*time.Hour + 59*time.Minute:   "23h59m",
		2*24*time.Hour + 11*time.Hour:   "2d11h",
		400*24*time.Hour + 1*time.Hour:  "400d01h",
		24*time.Hour - time.Nanosecond:  "1d00h",
		59*time.Minute + 59*time.Second: "59m59s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%s: got %s, want %s", d, got, want)
		}
	}
}

func TestPlural(t *testing.T) {
	for n, want := range map[int]string{0: "0 programs", 1: "1 program", 2: "2 programs"} {
		if got := plural(n, "program"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// What is compared with <, > and & in JSON stays as it is: people read it too.
func TestWriteJSON(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, map[string]string{"cmd": "a <b >c && d"}); err != nil {
		t.Fatal(err)
	}
	if want := "{\"cmd\":\"a <b >c && d\"}\n"; out.String() != want {
		t.Errorf("got %s", out.String())
	}
}

// terminal opens what the kernel takes for a terminal.
func terminal(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("cannot open a terminal: %v", err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestColours(t *testing.T) {
	tty := terminal(t)
	instances := []socket.Instance{{Name: "web", State: "RUNNING"}, {Name: "webdav", State: "FATAL"}, {Name: "RUNNING", State: "STOPPED"}}
	table := "NAME     STATE    DETAIL\nweb      RUNNING  RUNNING well\nwebdav   FATAL    -\nRUNNING  STOPPED  -\n"
	painted := strings.NewReplacer("web      RUNNING", "web      \x1b[32mRUNNING\x1b[0m", "FATAL", "\x1b[31;1mFATAL\x1b[0m").Replace(table)
	for _, test := range []struct {
		name     string
		terminal bool
		environ  map[string]string
		want     string
	}{
		{"on a terminal", true, nil, painted},
		{"an empty NO_COLOR is none", true, map[string]string{"NO_COLOR": ""}, painted},
		{"with NO_COLOR", true, map[string]string{"NO_COLOR": "1"}, table},
		{"on a dumb terminal", true, map[string]string{"TERM": "dumb"}, table},
		{"elsewhere", false, nil, table},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &env{stdout: &bytes.Buffer{}, getenv: func(key string) string { return test.environ[key] }}
			if test.terminal {
				e.stdout = tty
			}
			if got := paint(e, table, instances); got != test.want {
				t.Errorf("got\n%q\nwant\n%q", got, test.want)
			}
		})
	}
}

func TestTerminals(t *testing.T) {
	if isTerminal(&bytes.Buffer{}) || terminalWidth(&bytes.Buffer{}) != 0 {
		t.Error("a buffer counts as a terminal")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if isTerminal(null) || terminalWidth(null) != 0 {
		t.Error("/dev/null counts as a terminal")
	}
	if !isTerminal(terminal(t)) {
		t.Error("a terminal counts as none")
	}
}
