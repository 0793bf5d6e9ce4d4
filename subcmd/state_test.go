package subcmd

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"pm.example/codec"
	"pm.example/config"
	"pm.example/socket"
)

// savedState writes a state of ten instances, and returns the bytes of its file.
func savedState(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	s, warning, err := openState(dir)
	if err != nil || warning != nil {
		t.Fatal(warning, err)
	}
	s.log, s.committed, s.recent = slog.New(slog.DiscardHandler), func() {}, func() []socket.Event { return nil }
	s.begin(nil, false)
	s.setConfig(savedConfig{File: &config.File{Path: "pm.toml"}})
	for n := range 10 {
		s.Put("web", n, fmt.Appendf(nil, "record %d", n))
		s.addEvent(socket.Event{Seq: uint64(n), Type: "starting", Instance: fmt.Sprintf("web:%d", n)})
	}
	s.Commit()
	s.close()
	data, err := os.ReadFile(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// openBytes opens a state whose file holds the given bytes.
func openBytes(t *testing.T, data []byte) (s *state, aside []string, warning error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, warning, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	aside, _ = filepath.Glob(filepath.Join(dir, "state.damaged-*"))
	return s, aside, warning
}

// A state that ends at any byte is read to there, without a word: so it looks
// when its writer was killed.
func TestStateCutAnywhere(t *testing.T) {
	data := savedState(t)
	before := 0
	for size := range len(data) + 1 {
		s, aside, warning := openBytes(t, data[:size])
		if warning != nil || len(aside) > 0 {
			t.Errorf("cut at %d: %v, %q", size, warning, aside)
		}
		if n := len(s.instances); n < before {
			t.Errorf("cut at %d: %d instances, and %d with fewer bytes", size, n, before)
		} else {
			before = n
		}
	}
	if before != 10 {
		t.Errorf("%d instances of the whole file", before)
	}
}

// A byte that was changed costs one record at most, and the file is set aside.
func TestStateDamagedAnywhere(t *testing.T) {
	data := savedState(t)
	for at := 0; at < len(data); at += 3 {
		data[at] ^= 0x55
		s, aside, warning := openBytes(t, data)
		data[at] ^= 0x55
		last := at > len(data)-200 // of the last record nobody knows whether it was written
		if !last && (warning == nil || len(aside) != 1) {
			t.Errorf("byte %d: %v, %q", at, warning, aside)
		}
		if lost := 10 - len(s.instances) + 10 - len(s.events); lost > 1 || s.config == nil && lost > 0 {
			t.Errorf("byte %d: %d instances, %d events", at, len(s.instances), len(s.events))
		}
	}
}

// An event comes back as it was, with every field that it has.
func TestEventRecord(t *testing.T) {
	at := time.Now().Round(0).UTC()
	want := socket.Event{
		Schema: 1, Seq: 1 << 62, Time: at, Type: "exited", Instance: "web:1", Program: "web",
		Task: &socket.Task{ID: "web:1.x-1", State: "TASK_FAILED"}, PID: 41,
		Exit: &socket.Exit{Code: -1, Signal: "KILL", Unknown: true, Time: at.Add(-time.Hour), Expected: true},
		By:   "uid 0 pid 1", Message: "it\nended",
	}
	for _, v := range []any{want, *want.Task, *want.Exit} {
		for n := range reflect.TypeOf(v).NumField() {
			if reflect.ValueOf(v).Field(n).IsZero() {
				t.Errorf("the test leaves out %T.%s", v, reflect.TypeOf(v).Field(n).Name)
			}
		}
	}
	for _, want := range []socket.Event{want, {}} {
		d := codec.NewDecoder(eventRecord(nil, want))
		if kind := d.Int(); kind != stateEvent {
			t.Errorf("it is of kind %d", kind)
		}
		if got := decodeEvent(d); !reflect.DeepEqual(got, want) || d.Err() != nil || d.More() {
			t.Errorf("%+v, want %+v (%v)", got, want, d.Err())
		}
	}
}
