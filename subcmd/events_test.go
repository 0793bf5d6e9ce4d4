package subcmd

import (
	"context"
	"slices"
	"strings"
	"testing"

	"pm.example/socket"
)

// event is the event with that number, and the line that it is printed as.
func event(seq uint64) (ev socket.Event, line string) {
	number := string(rune('0' + seq))
	return socket.Event{Schema: 1, Seq: seq, Type: "running", Instance: "web"},
		`{"schema":1,"seq":` + number + `,"time":"0001-01-01T00:00:00Z","type":"running","instance":"web"}` + "\n"
}

// dropped is the last event of a stream whose client reads too slowly.
func dropped(after uint64) socket.Event {
	return socket.Event{Schema: 1, Seq: after, Type: socket.EventDropped, Message: "events are missing"}
}

// One who is cut off asks again from there on, and tells of a gap only if there
// is one.
func TestEvents(t *testing.T) {
	const gap = `{"schema":1,"seq":3,"time":"0001-01-01T00:00:00Z","type":"dropped","message":"events are missing"}` + "\n"
	e2, line2 := event(2)
	e3, line3 := event(3)
	e4, line4 := event(4)
	e6, line6 := event(6)
	for _, test := range []struct {
		name    string
		args    []string
		answers [][]socket.Event // to the first request, the second …
		want    []socket.EventsRequest
		stdout  string
	}{
		{"all", nil, [][]socket.Event{{e2, e3}}, []socket.EventsRequest{{}}, line2 + line3},
		{"from a number on", []string{"--since", "2"}, [][]socket.Event{{e3, e6}}, []socket.EventsRequest{{Since: 2}}, line3 + line6},
		{"on and on", []string{"-f"}, [][]socket.Event{{e2}}, []socket.EventsRequest{{Follow: true}}, line2},
		{
			"cut off",
			[]string{"-f", "--since", "1"},
			[][]socket.Event{{e2, e3, dropped(3)}, {e4, e6}},
			[]socket.EventsRequest{{Follow: true, Since: 1}, {Follow: true, Since: 3}},
			line2 + line3 + line4 + line6,
		},
		{"a gap", nil, [][]socket.Event{{e3, dropped(3)}, {e6}}, []socket.EventsRequest{{}, {Since: 3}}, line3 + gap + line6},
		{
			"cut off twice", nil,
			[][]socket.Event{{e2, dropped(2)}, {e3, dropped(3)}, {e4}},
			[]socket.EventsRequest{{}, {Since: 2}, {Since: 3}},
			line2 + line3 + line4,
		},
		{"nothing after it", nil, [][]socket.Event{{e2, e3, dropped(3)}, {}}, []socket.EventsRequest{{}, {Since: 3}}, line2 + line3},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []socket.EventsRequest
			path, _ := (&puppet{events: func(_ context.Context, req socket.EventsRequest, emit func(socket.Event) error) error {
				got = append(got, req) // one request at a time
				for _, ev := range test.answers[len(got)-1] {
					if err := emit(ev); err != nil {
						return err
					}
				}
				return nil
			}}).on(t)
			pmOn(t, path, append([]string{"events"}, test.args...)...).is(t, 0, test.stdout, "")
			if !slices.Equal(got, test.want) {
				t.Errorf("asked %+v, want %+v", got, test.want)
			}
		})
	}
}

// On a terminal events are for people, and nothing in them moves its cursor.
func TestEventsOnATerminal(t *testing.T) {
	ev := socket.Event{Schema: 1, Seq: 2, Time: instances()[0].Since, Type: "command", Message: "stop a\x1b[2J\nb"}
	path, _ := (&puppet{events: func(_ context.Context, _ socket.EventsRequest, emit func(socket.Event) error) error {
		return emit(ev)
	}}).on(t)
	tty := newDisplay(t, 24, 80)
	for args, want := range map[string]string{
		"events":        ev.Time.Local().Format("2006-01-02 15:04:05") + `  command: stop a\x1b[2J\nb` + "\r\n",
		"events --json": `{"schema":1,"seq":2,"time":"2026-05-01T12:00:00Z","type":"command","message":"stop a\u001b[2J\nb"}` + "\r\n",
	} {
		var stderr strings.Builder
		if code := pmTo(t.Context(), path, tty.tty, &stderr, strings.Fields(args)...); code != 0 || stderr.Len() > 0 {
			t.Errorf("pm %s: exit %d and %q", args, code, stderr.String())
		}
		tty.after(t, 0, want)
	}
}

func TestEventLine(t *testing.T) {
	at := instances()[0].Since
	for _, test := range []struct {
		event socket.Event
		want  string
	}{
		{socket.Event{Type: "reload"}, "reload"},
		{socket.Event{Type: "starting", Instance: "web:1", PID: 41}, "starting  web:1  pid 41"},
		{socket.Event{Type: "exited", Instance: "web", Exit: &socket.Exit{Code: 3}}, "exited  web  exit 3"},
		{socket.Event{Type: "fatal", Instance: "web", Exit: &socket.Exit{Code: 3}, Message: "exited too quickly (exit 3)"}, "fatal  web: exited too quickly (exit 3)"},
		{socket.Event{Type: "command", By: "uid 0 pid 4711", Message: "stop web"}, "command  by uid 0 pid 4711: stop web"},
	} {
		test.event.Time = at
		if got, want := eventLine(test.event), at.Local().Format("2006-01-02 15:04:05")+"  "+test.want; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
