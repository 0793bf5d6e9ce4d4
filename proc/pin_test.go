package proc

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPin pins a thread that nobody else uses: it ends with the test.
func TestPin(t *testing.T) {
	p := newPin()
	if runtime.NumCPU() < 2 || p == nil {
		if runtime.NumCPU() > 1 || p != nil {
			t.Errorf("with %d processors the pin is %v", runtime.NumCPU(), p)
		}
		return
	}
	done := make(chan struct{})
	go func() { // ends with its thread, which is left as it is
		defer close(done)
		runtime.LockOSThread()
		where := func(want processors) {
			t.Helper()
			var is processors
			if errno := is.get(0); errno != 0 || is != want {
				t.Errorf("on %d processors, want %d (%v)", is.count(), want.count(), errno)
			}
		}
		var home, one processors
		home.get(0)
		if home != p.online {
			t.Logf("this test may run on %d of %d processors: nothing is pinned", home.count(), p.online.count())
			p.hold()
			where(home)
			return
		}
		p.hold()
		if one.get(0); one.count() != 1 {
			t.Errorf("held on %d processors", one.count())
		}
		p.release()
		where(home)
		p.hold()
		p.resume()
		where(home)

		// A thread that gives way has its policy back, if it was the usual one.
		p.givesWay = true
		p.hold()
		if policy() != unix.SCHED_BATCH {
			t.Errorf("policy %d", policy())
		}
		p.resume()
		if policy() != unix.SCHED_NORMAL {
			t.Errorf("policy %d afterwards", policy())
		}
		setPolicy(unix.SCHED_IDLE)
		p.hold()
		p.release()
		if p.resume(); policy() != unix.SCHED_IDLE {
			t.Errorf("policy %d, and it was another", policy())
		}
		setPolicy(unix.SCHED_NORMAL)

		// Whoever has restricted the thread before finds it so afterwards …
		one.set()
		p.hold()
		p.resume()
		p.release()
		where(one)

		// … and whoever did it with all threads meanwhile, too. Here it is another witness
		// who tells of that.
		p.all.set()
		other := make(chan uintptr)
		leave := make(chan struct{})
		go func() { // ends with leave, and its thread with it
			runtime.LockOSThread()
			one.set()
			other <- uintptr(unix.Gettid())
			<-leave
		}()
		p.witness = <-other
		p.hold()
		p.resume()
		close(leave)
		where(one)
	}()
	<-done
}

func TestParseProcessors(t *testing.T) {
	for text, want := range map[string]int{"0\n": 1, "0-3": 4, "0-1,4,8-9\n": 5, "": -1, "x": -1, "3-": -1, "0-99999": -1} {
		var p processors
		if ok := p.parse([]byte(text)); ok != (want >= 0) || ok && p.count() != want {
			t.Errorf("%q: %d processors, %v", text, p.count(), ok)
		}
	}
}

// Nothing of how a replacement is launched is left to it, nor to the thread that has
// launched it.
func TestSuccessorIsNoBatchProcess(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	k.Spawn("first", 0, run("sleep", "60"))
	pid := in.next("first", Spawned).PID
	const field = 41 - 3 // of stat: the policy; the first behind the name is the third
	k.Plan("first", Successor{ID: "second", Except: true, Command: &Command{
		Argv: []string{"cat", "/proc/self/stat"}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe},
	}})
	_ = unix.Kill(pid, unix.SIGKILL)
	in.next("first", Exited)
	in.next("first", Empty)
	check := func(who, text string) {
		t.Helper()
		_, text, _ = strings.Cut(text, ") ")
		if policy := strings.Fields(text)[field]; policy != "0" {
			t.Errorf("%s has policy %s", who, policy)
		}
	}
	check("the program", read(t, in.next("second", Spawned).Stdout))
	in.next("second", Exited)
	threads, _ := filepath.Glob("/proc/self/task/*/stat")
	for _, path := range threads {
		text, _ := os.ReadFile(path)
		check(path, string(text))
	}
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
}
