package socket

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// visitor returns a connection before the door.
func visitor(t *testing.T, d *door) *conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return &conn{Conn: a, door: d}
}

// within reports how long enter took, and whether it let c in.
func within(d *door, c *conn) (time.Duration, bool) {
	start := time.Now()
	in := d.enter(c)
	return time.Since(start), in
}

// A full door puts out who has rested longest, after the grace, and never one
// who is worked for.
func TestDoorPutsOutOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(3, time.Second)
		busy, old, young, next := visitor(t, d), visitor(t, d), visitor(t, d), visitor(t, d)
		for _, c := range []*conn{busy, old, young} {
			d.enter(c)
			time.Sleep(100 * time.Millisecond) // synctest's time
		}
		if !d.begin(busy, quick) {
			t.Fatal("a quick request is refused")
		}
		if took, in := within(d, next); !in || took != 800*time.Millisecond {
			t.Errorf("next came in %v after %v, want the rest of old's grace", in, took)
		}
		for c, want := range map[*conn]bool{busy: true, old: false, young: true, next: true} {
			if _, in := d.inside[c]; in != want {
				t.Errorf("in %v, want %v", in, want)
			}
		}
		if d.begin(old, quick) {
			t.Error("one who was put out is worked for")
		}
	})
}

// A newcomer comes in as soon as somebody leaves or is done with.
func TestDoorFreed(t *testing.T) {
	for name, free := range map[string]func(d *door, c *conn){
		"left": func(d *door, c *conn) { d.end(c); c.Close() },
		"done": func(d *door, c *conn) { d.end(c); d.rest(c); d.end(c) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDoor(1, time.Minute)
				first, next := visitor(t, d), visitor(t, d)
				d.enter(first)
				d.begin(first, watch)
				time.AfterFunc(time.Hour, func() { free(d, first) })
				took, in := within(d, next)
				if limit := time.Hour + time.Minute; !in || took < time.Hour || took > limit {
					t.Errorf("came in %v after %v, want an hour", in, took)
				}
				synctest.Wait()
				if d.busy[watch] != 0 {
					t.Errorf("%d watchers left", d.busy[watch])
				}
			})
		})
	}
}

func TestDoorClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(1, time.Minute)
		first, next, late := visitor(t, d), visitor(t, d), visitor(t, d)
		d.enter(first)
		d.begin(first, command)
		time.AfterFunc(time.Hour, d.close)
		if took, in := within(d, next); in || took != time.Hour {
			t.Errorf("came in %v after %v, want turned away with the close", in, took)
		}
		if d.enter(late) {
			t.Error("one came in through a closed door")
		}
		if _, in := d.inside[first]; !in {
			t.Error("one with a request under way was put out")
		}
	})
}
