package proc

import (
	"os"
	"runtime"
	"strings"
	"testing"
)

func (p *processors) count() (n int) {
	for _, word := range p {
		for ; word != 0; word &= word - 1 {
			n++
		}
	}
	return n
}

// TestPin pins a thread that nobody else uses: it ends with the test.
func TestPin(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Log("with one processor nothing is pinned")
		return
	}
	done := make(chan struct{})
	go func() { // ends with its thread, which is left as it is
		defer close(done)
		runtime.LockOSThread()
		p := newPin()
		home, all := p.home, p.back
		if p.lost || home.count() < 2 || all.count() != len(all)*64 {
			t.Errorf("learned %d processors and to go back to %d, lost %v", home.count(), all.count(), p.lost)
		}
		where := func(want processors) {
			t.Helper()
			var is processors
			if errno := is.get(); errno != 0 || is != want {
				t.Errorf("on %d processors, want %d (%v)", is.count(), want.count(), errno)
			}
		}
		p.hold()
		var one processors
		one.get()
		if one.count() != 1 {
			t.Errorf("held on %d processors", one.count())
		}
		p.release()
		where(home)

		// Somebody has restricted it meanwhile.
		one.set()
		p.hold()
		where(one)
		p.release()
		where(one)
		if !p.lost {
			t.Error("it has not noticed that it may not run everywhere any more")
		}
		p.learn()
		if p.lost || p.home != one || p.back != one {
			t.Errorf("learned %d processors and to go back to %d", p.home.count(), p.back.count())
		}
		p.hold()
		p.release()
		where(one)

		// And has let it go, when its way back leads nowhere.
		all.set()
		p.learn()
		p.hold()
		p.back = processors{}
		p.release()
		where(home)
	}()
	<-done
}

func TestProgramMayRunWherePmMay(t *testing.T) {
	k := keeper(t)
	box := &inbox{t: t, k: k}
	k.Spawn("where", 1, func() (*Command, error) {
		return &Command{Argv: []string{"grep", "Cpus_allowed:", "/proc/self/status"}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
	})
	got := read(t, box.next("where", Spawned).Stdout)
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, ":") || !strings.Contains(string(status), got) {
		t.Errorf("the program has %q, and pm:\n%s", got, status)
	}
	k.Kill("where")
}
