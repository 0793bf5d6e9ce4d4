package subcmd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func historyIn(dir string) history {
	return newHistory(func(key string) string {
		if key == "XDG_STATE_HOME" {
			return dir
		}
		return ""
	})
}

func TestHistoryPlace(t *testing.T) {
	for _, test := range []struct{ state, home, want string }{
		{"/s", "/h", "/s/pm/history"},
		{"", "/h", "/h/.local/state/pm/history"},
		{"relative", "/h", "/h/.local/state/pm/history"},
		{"", "", ""},
	} {
		h := newHistory(func(key string) string {
			return map[string]string{"XDG_STATE_HOME": test.state, "HOME": test.home}[key]
		})
		if h.path != test.want {
			t.Errorf("%+v: got %q", test, h.path)
		}
	}
}

func TestHistoryKeeps(t *testing.T) {
	h := historyIn(t.TempDir())
	for n := range historyLines + 5 {
		if n > 10 && n < historyLines-10 { // each line rewrites the file
			continue
		}
		if err := h.add(fmt.Sprint("stop ", n)); err != nil {
			t.Fatal(err)
		}
	}
	other := historyIn(filepath.Dir(filepath.Dir(h.path))) // another session
	for _, line := range []string{"", "stop db", "stop db", "bad\x1bline", "bad\xff"} {
		if err := other.add(line); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := h.load()
	if err != nil || len(lines) != 27 || lines[0] != "stop 0" || lines[26] != "stop db" {
		t.Errorf("%d lines: %q, %v", len(lines), lines, err)
	}
	info, err := os.Stat(h.path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	left, err := os.ReadDir(filepath.Dir(h.path))
	if err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	h := historyIn(t.TempDir())
	var text strings.Builder
	for n := range 1200 {
		_, _ = fmt.Fprintf(&text, "stop %d %s\n", n, strings.Repeat("x", 5000))
	}
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path, []byte(text.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	lines, err := h.load()
	if err != nil || len(lines) > historyLines || !strings.HasPrefix(lines[0], "stop ") || !strings.HasPrefix(lines[len(lines)-1], "stop 1199 ") {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	many := slices.Repeat([]string{"a", "b"}, historyLines)
	if kept := newest(many); len(kept) != historyLines {
		t.Errorf("%d lines kept", len(kept))
	}
	if err := h.add("stop db"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(h.path); err != nil || info.Size() > historyBytes+10 || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// Whoever links the history to /dev/null wants none, and keeps the link.
func TestHistoryLinkIsLeftAlone(t *testing.T) {
	h := historyIn(t.TempDir())
	if err := os.MkdirAll(filepath.Dir(h.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", h.path); err != nil {
		t.Fatal(err)
	}
	if err := h.add("stop db"); err != nil {
		t.Fatal(err)
	}
	if lines, err := h.load(); len(lines) > 0 || err != nil {
		t.Errorf("%q, %v", lines, err)
	}
	if target, err := os.Readlink(h.path); target != "/dev/null" {
		t.Errorf("%s, %v", target, err)
	}
}

func TestHistoryThatCannotBeKept(t *testing.T) {
	h := history{path: "/dev/null/pm/history"}
	if err := h.add("stop db"); err == nil || !strings.HasPrefix(err.Error(), "cannot ") {
		t.Errorf("got %v", err)
	}
	if err := (history{}).add("stop db"); err != nil {
		t.Error(err)
	}
}
