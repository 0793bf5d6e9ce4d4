package subcmd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pm.example/socket"
)

// loggedOf has a worker on a state directory note some events; if it runs it logs them
// before its end, else it was killed first. It returns all that the log holds then.
func loggedOf(t *testing.T, dir string, runs bool, messages ...string) string {
	t.Helper()
	path := filepath.Join(dir, "log")
	file, err := openLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, warning, err := openState(dir)
	if err != nil || warning != nil {
		t.Fatal(warning, err)
	}
	l := newEventLog(slog.New(slog.NewTextHandler(file, nil)), file, nil)
	l.state = s
	s.log, s.committed, s.recent = slog.New(slog.DiscardHandler), l.committed, l.recent
	events := s.events
	l.restore(events, s.logged)
	s.begin(events, false)
	for _, m := range messages {
		l.publish(socket.Event{Type: "test", Message: m})
	}
	if runs {
		ended, end := context.WithCancel(t.Context())
		end()
		l.run(ended)
	}
	s.close()
	_ = file.file.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What a worker that was killed had not brought to the log yet, the next one does,
// and nothing comes twice.
func TestEventsLoggedByTheNextWorker(t *testing.T) {
	dir := t.TempDir()
	loggedOf(t, dir, false, "zero") // the first there has ever been
	loggedOf(t, dir, true, "one", "two")
	loggedOf(t, dir, false, "three")
	loggedOf(t, dir, false, "four")
	loggedOf(t, dir, true, "five")
	log := loggedOf(t, dir, true)
	last := -1
	for _, m := range []string{"zero", "one", "two", "three", "four", "five"} {
		at := strings.Index(log, "message="+m)
		if strings.Count(log, "message="+m) != 1 || at < last {
			t.Errorf("%s is missing, comes twice or in the wrong place:\n%s", m, log)
		}
		last = at
	}
}
