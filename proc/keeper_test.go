package proc

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/proc/inherited"
)

// keeper starts the one keeper of this test process.
func keeper(t *testing.T) *Keeper {
	t.Helper()
	k, err := NewKeeper(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// next returns the next event of the given task, failing after 20 s.
type inbox struct {
	t      *testing.T
	k      *Keeper
	events []Event
}

func (b *inbox) next(id string, kind EventKind) Event {
	b.t.Helper()
	e := b.any(id)
	if e.Kind != kind {
		b.t.Fatalf("task %s: event %d %+v, want kind %d", id, e.Kind, e, kind)
	}
	return e
}

// any returns the next event of a task.
func (b *inbox) any(id string) Event {
	b.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		for i, e := range b.events {
			if e.ID == id {
				b.events = append(b.events[:i:i], b.events[i+1:]...)
				return e
			}
		}
		select {
		case <-b.k.Ready():
			b.events = append(b.events, b.k.Take()...)
		case <-deadline:
			b.t.Fatalf("task %s: no event", id)
		}
	}
}

func run(argv ...string) func() (*Command, error) {
	return func() (*Command, error) {
		return &Command{Argv: argv, Env: os.Environ()}, nil
	}
}

func read(t *testing.T, fd int) string {
	t.Helper()
	f := os.NewFile(uintptr(fd), "pipe")
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestSpawnAndExit(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	k.Spawn("a", 0, run("sh", "-c", "exit 3"))
	k.Spawn("a", 0, run("sh", "-c", "exit 4")) // the id lives: nothing happens
	k.Spawn("b", 0, run("sh", "-c", "kill -SEGV $$"))
	if pid := in.next("a", Spawned).PID; pid <= 0 {
		t.Errorf("pid %d", pid)
	}
	if e := in.next("a", Exited); e.Status.Code != 3 || e.Left != 0 {
		t.Errorf("exit %+v, want code 3 and nothing left", e)
	}
	in.next("b", Spawned)
	if e := in.next("b", Exited); e.Status.Signal != unix.SIGSEGV || e.Status.Code != -1 {
		t.Errorf("exit %+v, want SEGV", e)
	}
	in.next("a", Empty)
	in.next("b", Empty)
	k.Release("a")
	k.Release("b")
	if n := len(k.List()); n != 0 {
		t.Errorf("%d tasks are left", n)
	}
}

// A program may act before its launch is written down: who asks who runs waits for that.
func TestListWaitsForLaunches(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	for n := range 20 {
		id := strconv.Itoa(n)
		under, goOn := make(chan struct{}), make(chan struct{})
		k.Spawn(id, 0, func() (*Command, error) {
			close(under)
			<-goOn
			return run("sleep", "60")()
		})
		<-under
		list := make(chan map[string]int)
		go func() { list <- k.List() }()
		runtime.Gosched()
		close(goOn)
		if _, there := (<-list)[id]; !there {
			t.Errorf("launch %d: nobody runs", n)
		}
		k.Kill(id)
		in.next(id, Spawned)
		in.next(id, Exited)
		in.next(id, Empty)
	}
}

func TestChildCircumstances(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	dir := t.TempDir()
	umask, nice := 0o027, 5
	before := unix.Umask(0)
	unix.Umask(before)
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{
			Argv:   []string{"sh", "-c", "umask; pwd; nice; ulimit -n; echo $X; cat; ps -o sid= -p $$ | tr -d ' '; echo $$ >&2"},
			Env:    append(os.Environ(), "X=1", "X=2"),
			Dir:    dir,
			Umask:  &umask,
			Nice:   &nice,
			Limits: map[int]Limit{unix.RLIMIT_NOFILE: {123, 456}},
			Stdout: Stdio{Kind: Pipe}, Stderr: Stdio{Kind: Pipe},
		}, nil
	})
	e := in.next("a", Spawned)
	errout := read(t, e.Stderr)
	want := strings.Join([]string{"0027", dir, "5", "123", "2", strings.TrimSpace(errout), ""}, "\n")
	if got := read(t, e.Stdout); got != want {
		t.Errorf("the child saw %q, want %q", got, want)
	}
	in.next("a", Exited)
	if now := unix.Umask(before); now != before {
		t.Errorf("the umask of pm itself became %o", now)
	}
}

func TestInheritedFileLimit(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{Argv: []string{"sh", "-c", "ulimit -n"}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
	})
	soft, _ := inherited.NoFile()
	if got := strings.TrimSpace(read(t, in.next("a", Spawned).Stdout)); got != strconv.FormatUint(soft, 10) {
		t.Errorf("soft limit of open files %s, want %d as this process was started with", got, soft)
	}
}

func TestFailures(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	noInterpreter := filepath.Join(dir, "nointerp")
	noFormat := filepath.Join(dir, "noformat")
	fifo := filepath.Join(dir, "fifo")
	for path, mode := range map[string]os.FileMode{plain: 0o644, noInterpreter: 0o755, noFormat: 0o755} {
		text := "#!/nonexistent/sh\n"
		if path == noFormat {
			text = "echo hi\n"
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	nice := 5
	for name, c := range map[string]struct {
		command Command
		want    string
		missing bool
	}{
		"empty":       {Command{}, `cmd: it is empty`, false},
		"nul":         {Command{Argv: []string{"true", "a\x00b"}}, `cmd "a\x00b": it contains a NUL byte`, false},
		"not found":   {Command{Argv: []string{"no-such-command"}}, `cmd "no-such-command": no such command in its PATH`, true},
		"no file":     {Command{Argv: []string{"/no/such"}}, `cmd "/no/such": no such command`, true},
		"directory":   {Command{Argv: []string{"/tmp"}}, `cmd "/tmp": it is a directory`, false},
		"plain":       {Command{Argv: []string{plain}}, `cmd "` + plain + `": not executable, or not permitted`, false},
		"interpreter": {Command{Argv: []string{noInterpreter}}, `cmd "` + noInterpreter + `": ` + errNoInterprete.Error(), false},
		"format":      {Command{Argv: []string{noFormat}}, `cmd "` + noFormat + `": ` + errFormat.Error(), false},
		"dir":         {Command{Argv: []string{"true"}, Dir: "/no/such"}, `workingdir "/no/such": no such file or directory`, false},
		"stdin":       {Command{Argv: []string{"true"}, Stdin: Stdio{Kind: Input, Path: "/no/such"}}, `stdin "/no/such": no such file or directory`, false},
		"stdout":      {Command{Argv: []string{"true"}, Stdout: Stdio{Kind: File, Path: "/no/such/log"}}, `stdout "/no/such/log": no such file or directory`, false},
		"fifo":        {Command{Argv: []string{"true"}, Stdout: Stdio{Kind: File, Path: fifo}}, `stdout "` + fifo + `": it is a FIFO or socket that nobody reads`, false},
		"limit":       {Command{Argv: []string{"true"}, Limits: map[int]Limit{unix.RLIMIT_NOFILE: {9, 3}}, Nice: &nice}, `limits.nofile 9:3: invalid argument`, false},
	} {
		t.Run(name, func(t *testing.T) {
			k.Spawn(name, 0, func() (*Command, error) { return &c.command, nil })
			e := (&inbox{t: t, k: k, events: in.events}).next(name, Failed)
			if e.Err.Error() != c.want {
				t.Errorf("error %q, want %q", e.Err, c.want)
			}
			if e.Err.Missing() != c.missing {
				t.Errorf("Missing %v, want %v", e.Err.Missing(), c.missing)
			}
		})
	}
}

// A keeper starts nothing without a cgroup on the main thread, whose children are
// to be orphans only. Tests run on other threads: it was tried before.
func TestNothingStartsOnTheMainThread(t *testing.T) {
	if !launches.began || launches.stayed {
		t.Errorf("launches %+v", launches)
	}
}

// launches tells of a launch that was tried on the main thread, to which the
// runtime keeps the main goroutine only while variables are initialized.
var launches = tryOnMainThread()

func tryOnMainThread() (l struct{ began, stayed bool }) {
	onMain := func() bool { return unix.Gettid() == unix.Getpid() }
	l.began = onMain()
	new(Keeper).aside("", func() { l.stayed = onMain() })
	return l
}

func TestNoPipeStaysOpen(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{Argv: []string{"true"}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
	})
	k.Spawn("b", 0, run("sleep", "1000"))
	if got := read(t, in.next("a", Spawned).Stdout); got != "" { // returns only when no one holds the pipe
		t.Errorf("read %q", got)
	}
	in.next("b", Spawned)
	k.Kill("b")
	if e := in.next("b", Exited); e.Status.Signal != syscall.SIGKILL {
		t.Errorf("status %+v", e.Status)
	}
	in.next("b", Empty)
}

// A descendant that left its session, its parent and its environment is found
// and ended with the tree.
func TestKillFindsWhoHides(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	file := filepath.Join(t.TempDir(), "pid")
	k.Spawn("a", 0, run("sh", "-c", `
		(setsid env -i /bin/sh -c 'trap "" TERM HUP INT; echo $$ >`+file+`.tmp; mv `+file+`.tmp `+file+`; while :; do sleep 1000; done' &) &
		while ! test -e `+file+`; do :; done; exit 7`))
	in.next("a", Spawned)
	e := in.next("a", Exited)
	if e.Status.Code != 7 || e.Left == 0 {
		t.Fatalf("exit %+v, want code 7 and something left", e)
	}
	k.Terminate("a", 1, unix.SIGTERM, nil)
	k.Kill("a")
	in.next("a", Empty)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(data))); err == nil {
		t.Errorf("process %s outlived its tree", data)
	}
}

func TestTerminateExcludes(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{
			Argv: []string{"sh", "-c", `trap 'echo parent; wait; exit 0' TERM; (trap 'echo child; exit 0' TERM; sleep 1000 & echo ready; wait) & wait`},
			Env:  os.Environ(), Stdout: Stdio{Kind: Pipe},
		}, nil
	})
	e := in.next("a", Spawned)
	buf := make([]byte, 64)
	f := os.NewFile(uintptr(e.Stdout), "pipe")
	defer f.Close()
	if n, _ := f.Read(buf); string(buf[:n]) != "ready\n" {
		t.Fatalf("read %q", buf[:n])
	}
	k.Terminate("a", 1, unix.SIGTERM, []string{"SLEEP"})
	in.next("a", Exited) // both shells got the signal, though the child's sleep did not
	k.Kill("a")
	in.next("a", Empty)
	rest, _ := io.ReadAll(f)
	if got := string(rest); got != "parent\nchild\n" && got != "child\nparent\n" {
		t.Errorf("printed %q", got)
	}
}

func TestSignalOfAnEndedTask(t *testing.T) {
	k := keeper(t)
	if err := k.Signal("nobody", unix.SIGTERM); err != unix.ESRCH {
		t.Errorf("error %v, want ESRCH", err)
	}
}

func TestListenDescriptors(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k.Spawn("a", 0, func() (*Command, error) {
		return &Command{
			Argv: []string{"sh", "-c", `test "$LISTEN_PID" = $$ && echo $LISTEN_FDS; cat <&3; ls /proc/self/fd | tr "\n" " "`},
			Env:  append(os.Environ(), "LISTEN_PID=1", "LISTEN_FDS=9"), Listen: []*os.File{f},
			Stdout: Stdio{Kind: Pipe},
		}, nil
	})
	if got := read(t, in.next("a", Spawned).Stdout); got != "1\nhello0 1 2 3 4 " { // 4 is of ls itself
		t.Errorf("the child printed %q", got)
	}
}

// A launch waits for one of another rank that is under way, also if that is not
// the spawners': of an attendant, or of a successor that the reaper starts.
func TestLaunchAfterAnotherRank(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	for n := range 20 {
		k.mu.Lock()
		k.spawning, k.rank = 1, n // as by Attend
		k.mu.Unlock()
		id := strconv.Itoa(n)
		k.Spawn(id, n+1, run("true"))
		for len(k.spawnable) > 0 { // a spawner looks, and goes to sleep again
			runtime.Gosched()
		}
		k.mu.Lock()
		k.launched()
		k.mu.Unlock()
		in.next(id, Spawned)
	}
}

// A limit of open files that is lowered while pm runs keeps programs from being
// started only as long as it lasts, and that is what is told.
func TestLoweredFileLimit(t *testing.T) {
	k := keeper(t)
	in := &inbox{t: t, k: k}
	reads := func() (*Command, error) {
		return &Command{Argv: []string{"true"}, Env: os.Environ(), Stdin: Stdio{Kind: Input, Path: "/dev/zero"}}, nil
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFiles, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	k.Spawn("a", 0, reads)
	e := in.next("a", Failed)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !e.Err.Passing || !strings.Contains(e.Err.Error(), "too many open files") {
		t.Errorf("passing %v: %v", e.Err.Passing, e.Err)
	}
	k.Spawn("b", 0, reads)
	in.next("b", Spawned)
}
