package subcmd

import (
	"reflect"
	"testing"
	"time"

	"pm.example/codec"
	"pm.example/socket"
)

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
		d := codec.NewDecoder(eventRecord(want))
		if kind := d.Int(); kind != stateEvent {
			t.Errorf("it is of kind %d", kind)
		}
		if got := decodeEvent(d); !reflect.DeepEqual(got, want) || d.Err() != nil || d.More() {
			t.Errorf("%+v, want %+v (%v)", got, want, d.Err())
		}
	}
}
