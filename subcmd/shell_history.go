package subcmd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a history file holds at most. Of a longer one, made by something else,
// the end is read.
const (
	historyLines = 1000
	historyBytes = 4 << 20
)

// history keeps the lines that were typed, in a file of the user's.
type history struct {
	path string // "": there is no place for one
}

// newHistory returns the history in the user's state directory.
func newHistory(getenv func(string) string) history {
	dir := getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) { // as its specification has it
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return history{}
		}
		dir = filepath.Join(home, ".local", "state")
	}
	return history{path: filepath.Join(dir, "pm", "history")}
}

// load returns the lines of earlier sessions, the oldest first.
func (h history) load() ([]string, error) {
	if h.path == "" {
		return nil, nil
	}
	f, err := os.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := readEnd(f, historyBytes)
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	return newest(slices.Collect(strings.Lines(text))), nil
}

// readEnd reads the last bytes of a file, from the beginning of a line. What is
// no regular file has none.
func readEnd(f *os.File, most int64) (string, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return "", err
	}
	skip := max(info.Size()-most, 0)
	data, err := io.ReadAll(io.NewSectionReader(f, skip, most))
	if skip > 0 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return string(data), err
}

// newest returns the last lines, without what cannot be edited and without
// repetitions of the line before.
func newest(lines []string) (kept []string) {
	for _, line := range lines {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || !utf8.ValidString(line) || printable(line) != line {
			continue
		}
		if len(kept) == 0 || kept[len(kept)-1] != line {
			kept = append(kept, line)
		}
	}
	return kept[max(len(kept)-historyLines, 0):]
}

// add puts a line at the end of the file, which other sessions may have added
// to meanwhile. The file is replaced as a whole: whoever reads it never finds
// half of it. A history that is a link is left as it is: pointed to /dev/null
// it keeps nothing.
func (h history) add(line string) error {
	if h.path == "" || line == "" {
		return nil
	}
	if info, err := os.Lstat(h.path); err == nil && !info.Mode().IsRegular() {
		return nil
	}
	before, err := h.load()
	if err != nil {
		return err
	}
	lines := newest(append(before, line))
	if slices.Equal(lines, before) {
		return nil
	}
	if err := h.replace(strings.Join(lines, "\n") + "\n"); err != nil {
		return fmt.Errorf("cannot keep the history: %w", err)
	}
	return nil
}

// replace writes the file under another name, and gives it its own. Its mode
// is 0600, as os.CreateTemp makes it.
func (h history) replace(text string) (err error) {
	dir := filepath.Dir(h.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".history-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), h.path)
}
