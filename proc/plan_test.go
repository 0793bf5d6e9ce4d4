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
