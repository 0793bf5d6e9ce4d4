package proc

import (
	"os"
	"testing"
	"time"
)

// A planned successor starts by itself after an end that it follows, and not
// after others.
func TestSuccessor(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	command := &Command{Argv: []string{"true"}, Env: os.Environ()}
	for name, c := range map[string]struct {
		next  Successor
		argv  []string
		begun bool
	}{
		"follows all":        {Successor{Except: true}, []string{"false"}, true},
		"but for one":        {Successor{Except: true, Ends: []Status{{Code: 1}}}, []string{"false"}, false},
		"follows one":        {Successor{Ends: []Status{{Code: 1}}}, []string{"false"}, true},
		"and no other":       {Successor{Ends: []Status{{Code: 2}}}, []string{"false"}, false},
		"not before its day": {Successor{Except: true, After: time.Now().Add(time.Hour)}, []string{"false"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			id, next := name, c.next
			next.ID, next.Command = name+" 2", command
			gate, open, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer gate.Close()
			k.Spawn(id, 0, func() (*Command, error) {
				return &Command{Argv: []string{"sh", "-c", "read x; exec " + c.argv[0]}, Env: os.Environ(), Stdin: Stdio{Kind: Descriptor, File: gate}}, nil
			})
			in.next(id, Spawned)
			k.Plan(id, next)
			_ = open.Close()
			in.next(id, Exited)
			in.next(id, Empty)
			k.mu.Lock()
			begun := k.tasks[next.ID] != nil
			k.mu.Unlock()
			if begun != c.begun {
				t.Errorf("begun: %v, want %v", begun, c.begun)
			}
			if begun {
				in.next(next.ID, Spawned)
				in.next(next.ID, Exited)
				in.next(next.ID, Empty)
			}
			k.Release(id)
			k.Release(next.ID)
		})
	}
}

// A successor without a command of its own is started as the task was, and so is
// its own; unless another keeper has started the task.
func TestSuccessorOfTheSameKind(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	gate, open, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer gate.Close()
	k.Spawn("1", 0, func() (*Command, error) {
		return &Command{Argv: []string{"sh", "-c", "read x; exit $CODE"}, Common: []string{"CODE=1"}, Env: []string{"CODE=7"}, Stdin: Stdio{Kind: Descriptor, File: gate}}, nil
	})
	in.next("1", Spawned)
	for n, id := range []string{"1", "2"} {
		next := []string{"2", "3"}[n]
		k.Plan(id, Successor{ID: next, Except: true})
		if _, err := open.WriteString("go\n"); err != nil {
			t.Fatal(err)
		}
		if e := in.next(id, Exited); e.Status.Code != 7 {
			t.Errorf("%s has ended with %v", id, e.Status)
		}
		in.next(id, Empty)
		in.next(next, Spawned)
	}
	k.mu.Lock()
	k.tasks["3"].command = nil // as if it was adopted
	k.mu.Unlock()
	k.Plan("3", Successor{ID: "4", Except: true})
	_ = open.Close()
	in.next("3", Exited)
	in.next("3", Empty)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tasks["4"] != nil {
		t.Error("a successor without a command")
	}
}
