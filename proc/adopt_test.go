package proc

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pm.example/codec"
	"pm.example/journal"
)

// keeperProcess is a process of its own with a keeper that keeps records. It is
// told what to do by lines, and tells events by lines:
//
//	spawn ID CMD…   release ID   kill ID   term ID   exec [PID]
//
// The last makes it a new keeper in the same process; PID is killed and reaped
// before that has looked at its records.
type keeperProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	input io.Writer
	lines *bufio.Scanner
	seen  []string
}

const (
	keeperEnv = "PM_TEST_KEEPER"
	endEnv    = "PM_TEST_KEEPER_END"
)

func startKeeper(t *testing.T, records string) *keeperProcess {
	t.Helper()
	// Orphans must not come to this process, which would then be their parent.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKeeperProcess$")
	cmd.Env = append(os.Environ(), keeperEnv+"="+records)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &keeperProcess{t: t, cmd: cmd, input: in, lines: bufio.NewScanner(out)}
	t.Cleanup(p.die)
	return p
}

func (p *keeperProcess) die() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *keeperProcess) tell(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.input, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
}

// want reads events until one begins with the given words, and returns the rest
// of it. Those before it can be wanted later: tasks are told of in any order.
func (p *keeperProcess) want(begin string) string {
	p.t.Helper()
	for i, line := range p.seen {
		if rest, ok := strings.CutPrefix(line, begin); ok {
			p.seen = slices.Delete(p.seen, i, i+1)
			return strings.TrimSpace(rest)
		}
	}
	for p.lines.Scan() {
		if rest, ok := strings.CutPrefix(p.lines.Text(), begin); ok {
			return strings.TrimSpace(rest)
		}
		p.seen = append(p.seen, p.lines.Text())
	}
	p.t.Fatalf("no event %q, but %q", begin, p.seen)
	return ""
}

// TestKeeperProcess is the keeper process.
func TestKeeperProcess(t *testing.T) {
	records := os.Getenv(keeperEnv)
	if records == "" {
		return // it is no test
	}
	k, err := NewHeir(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(os.Getenv(endEnv)); err == nil {
		endAndWait(t, pid)
	}
	warning, err := k.Resume(records)
	if err != nil || warning != nil {
		fmt.Println("error", err, warning)
		os.Exit(1)
	}
	k.Replay()
	go func() {
		for range k.Ready() {
			for _, e := range k.Take() {
				printEvent(e)
			}
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		words := strings.Fields(in.Text())
		switch words[0] {
		case "spawn":
			k.Spawn(words[1], 0, func() (*Command, error) {
				return &Command{Argv: words[2:], Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
			})
		case "release":
			k.Release(words[1])
		case "drained":
			k.Drained(words[1], 0)
		case "kill":
			k.Kill(words[1])
		case "term":
			k.Terminate(words[1], 1, syscall.SIGTERM, nil)
		case "list":
			fmt.Println("list", len(k.List()))
		case "exec":
			env := os.Environ()
			if len(words) > 1 {
				env = append(env, endEnv+"="+words[1])
			}
			_ = syscall.Exec("/proc/self/exe", os.Args, env)
		}
	}
	os.Exit(0)
}

func printEvent(e Event) {
	switch e.Kind {
	case Spawned:
		text := "-"
		if e.Stdout >= 0 {
			var buf [100]byte
			_ = unix.SetNonblock(e.Stdout, true)
			if n, _ := unix.Read(e.Stdout, buf[:]); n > 0 {
				text = strconv.Quote(string(buf[:n]))
			}
			_ = unix.Close(e.Stdout)
		}
		fmt.Println("spawned", e.ID, e.PID, text)
	case Failed:
		fmt.Println("failed", e.ID, e.Err, e.Err.Missing())
	case Exited:
		fmt.Println("exited", e.ID, e.Status.Code, int(e.Status.Signal), e.Status.Unknown)
	case Empty:
		fmt.Println("empty", e.ID)
	}
}

func recordsFile(t *testing.T) string { return filepath.Join(t.TempDir(), "records") }

// A keeper that is killed loses no program, and its successor learns how each
// ends although it is nobody's child of his.
func TestAdoptAfterKill(t *testing.T) {
	records := recordsFile(t)
	first := startKeeper(t, records)
	first.tell("spawn a sleep 1000")
	first.tell("spawn b cat /proc/self/nosuch")
	first.tell("spawn c nosuchcommand")
	a := first.want("spawned a")
	first.want("exited b 1 0")
	first.want("failed c")
	first.die()

	second := startKeeper(t, records)
	if again := second.want("spawned a"); again != a {
		t.Errorf("a was %q and is %q", a, again)
	}
	second.tell("term a")
	second.want("exited a -1 15 false")
	second.want("empty a")
	second.tell("release a")
	second.tell("release b")
	second.tell("release c")
	second.tell("drained a")
	second.tell("drained b")
	second.tell("spawn d true")
	second.want("exited d 0")
	second.die()

	third := startKeeper(t, records)
	if told := third.want("spawned"); !strings.HasPrefix(told, "d ") {
		t.Errorf("released tasks are told of: %q", told)
	}
}

// Nobody lived when the program ended: its end is unknown, and not invented.
func TestEndThatNobodySaw(t *testing.T) {
	records := recordsFile(t)
	first := startKeeper(t, records)
	first.tell("spawn a sleep 1000")
	pid, _ := strconv.Atoi(strings.Fields(first.want("spawned a"))[0])
	first.die()
	endAndWait(t, pid)
	second := startKeeper(t, records)
	second.want("exited a -1 0 true")
	second.want("empty a")
}

// What a program has left behind that ended under an earlier keeper is no child of
// this one, and is not forgotten.
func TestOrphansOfAnEarlierKeeper(t *testing.T) {
	dir := t.TempDir()
	script, told := filepath.Join(dir, "script"), filepath.Join(dir, "pid")
	text := "#!/bin/sh\n(trap '' TERM; exec sleep 1000) &\necho $! >" + told + "\nexec sleep 1000\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	records := recordsFile(t)
	first := startKeeper(t, records)
	first.tell("spawn a %s", script)
	leader, _ := strconv.Atoi(strings.Fields(first.want("spawned a"))[0])
	var orphan int
	for orphan == 0 {
		data, _ := os.ReadFile(told)
		orphan, _ = strconv.Atoi(strings.TrimSpace(string(data)))
	}
	fd, err := unix.PidfdOpen(orphan, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(fd)
	endAndWait(t, leader)
	first.want("exited a -1 9")
	first.die()

	second := startKeeper(t, records)
	second.tell("term a")
	second.tell("spawn b true")
	second.want("empty b") // the same pass looks at a
	second.tell("list")
	second.want("list")
	if slices.Contains(second.seen, "empty a") {
		t.Error("it is said to be gone, and lives")
	}
	second.tell("kill a")
	second.want("empty a")
	if !hasEnded(fd) {
		t.Error("it lives on")
	}
}

// endAndWait kills a process that is no child and waits until it is reaped.
func endAndWait(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeQuietly(fd)
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd)}}, 20_000) // POLLHUP: it is reaped
}

func closeQuietly(fd int) { _ = unix.Close(fd) }

// An end between an execve(2) and the look at the records is not lost.
func TestEndBeforeResume(t *testing.T) {
	p := startKeeper(t, recordsFile(t))
	p.tell("spawn a sleep 1000")
	p.tell("exec %s", strings.Fields(p.want("spawned a"))[0])
	p.want("exited a -1 9 false")
	p.want("empty a")
}

// What a program writes while no keeper lives waits in its pipe, and it does not
// die of writing.
func TestPipesOutliveTheKeeper(t *testing.T) {
	records := recordsFile(t)
	go1 := filepath.Join(t.TempDir(), "go")
	if err := unix.Mkfifo(go1, 0o600); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "writer")
	text := "#!/bin/sh\nread x <" + go1 + "\necho hello\nexec sleep 1000\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	first := startKeeper(t, records)
	first.tell("spawn a %s", script)
	pid := strings.Fields(first.want("spawned a"))[0]
	first.die()
	if err := os.WriteFile(go1, []byte("x\n"), 0); err != nil {
		t.Fatal(err)
	}
	for comm := ""; comm != "sleep"; { // it has written
		data, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			t.Fatal("the program has died")
		}
		comm = strings.TrimSpace(string(data))
	}
	second := startKeeper(t, records)
	if got := second.want("spawned a"); got != pid+` "hello\n"` {
		t.Errorf("told %q", got)
	}
	second.tell("kill a")
	second.want("exited a -1 9 false")
}

// A keeper that is killed in the moment of a launch has written down only what it
// was about to do. Its successor finds the program by that, and what it prints.
func TestPipesOfALaunchCutShort(t *testing.T) {
	records := recordsFile(t)
	first := startKeeper(t, records)
	first.tell("spawn a sleep 1000")
	pid := strings.Fields(first.want("spawned a"))[0]
	out, err := os.OpenFile("/proc/"+pid+"/fd/1", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	first.die()
	leaveOut(t, records, recordSpawned)
	if _, err := out.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	second := startKeeper(t, records)
	if got := second.want("spawned a"); got != pid+` "hello\n"` {
		t.Errorf("told %q", got)
	}
	second.tell("kill a")
	second.want("exited a -1 9 false")
}

// A child that ends before it has become its program, since the keeper has died, was
// never started: its exit code is not the program's.
func TestLaunchThatGaveUp(t *testing.T) {
	// The shell forks one that executes nothing, and becomes one that does not wait for it.
	cmd := exec.Command("sh", "-c", "(exit 127) & echo $!; exec sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]int{child: 0, cmd.Process.Pid: cmd.Process.Pid} {
		task := &known{}
		if task.findLeader([]int{pid}); task.pid != want {
			t.Errorf("process %d is taken for leader %d, want %d", pid, task.pid, want)
		}
	}
	if n := living([]int{child, cmd.Process.Pid}); n != 1 {
		t.Errorf("of a zombie and a process %d live", n)
	}
}

// leaveOut rewrites the records without those of a kind.
func leaveOut(t *testing.T, path string, kind recordKind) {
	t.Helper()
	j, list, err := journal.Open(path, recordsMagic)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = j.Close() }()
	list = slices.DeleteFunc(list, func(r []byte) bool { return recordKind(codec.NewDecoder(r).Int()) == kind })
	if err := j.Rewrite(list); err != nil {
		t.Fatal(err)
	}
}

// An execve keeps children, and what ended meanwhile.
func TestExecInPlace(t *testing.T) {
	k := startKeeper(t, recordsFile(t))
	k.tell("spawn a sleep 1000")
	a := k.want("spawned a")
	for range 20 {
		k.tell("exec")
		if again := k.want("spawned a"); again != a {
			t.Errorf("a was %q and is %q", a, again)
		}
	}
	k.tell("kill a")
	k.want("exited a -1 9 false")
	k.want("empty a")
}

// What has happened by a hand-over is written down, also if nobody was told yet:
// the next keeper cannot ask for the end of a child that is reaped.
func TestHandOverWritesEndsDown(t *testing.T) {
	k, path := keeper(t), recordsFile(t)
	if warning, err := k.Resume(path); warning != nil || err != nil {
		t.Fatal(warning, err)
	}
	k.Spawn("a", 0, run("sh", "-c", "exit 7"))
	for len(k.List()) > 0 || len(endsIn(t, path)) == 0 {
		leaders, release, err := k.HandOver()
		if err != nil {
			t.Fatal(err)
		}
		_ = leaders.Close()
		dead, ends := k.tasks["a"].dead, endsIn(t, path)
		release()
		if dead && (len(ends) != 1 || ends[0].Code != 7) {
			t.Fatalf("written down: %v", ends)
		}
		if dead {
			return
		}
		runtime.Gosched()
	}
}

// A task whose pipe cannot be handed out, since there are no descriptors, is told of
// again when there are, and before what is started later.
func TestRemindOfPipes(t *testing.T) {
	k := keeper(t)
	if warning, err := k.Resume(recordsFile(t)); warning != nil || err != nil {
		t.Fatal(warning, err)
	}
	in := &inbox{t: t, k: k}
	echo := func(id string) {
		k.Spawn(id, 0, func() (*Command, error) {
			return &Command{Argv: []string{"echo", id}, Env: os.Environ(), Stdout: Stdio{Kind: Pipe}}, nil
		})
	}
	over := func(id string) {
		in.next(id, Exited)
		in.next(id, Empty)
	}
	for _, id := range []string{"a", "b"} {
		echo(id)
		in.next(id, Spawned).ClosePipes()
		over(id)
	}
	withoutDescriptors(t, k.Replay)
	for _, id := range []string{"a", "b"} {
		if e := in.next(id, Spawned); !e.Unheard || e.Stdout >= 0 {
			t.Errorf("without descriptors: %+v", e)
		}
		over(id)
	}
	withoutDescriptors(t, func() {
		if !k.Remind() {
			t.Error("nothing is left to be handed out, though there are no descriptors")
		}
	})
	echo("c")
	for _, id := range []string{"a", "b", "c"} {
		e := in.next(id, Spawned)
		if e.Unheard || e.Stdout < 0 {
			t.Fatalf("with descriptors again: %+v", e)
		}
		if id != "c" {
			var buf [100]byte
			if n, err := unix.Read(e.Stdout, buf[:]); err != nil || string(buf[:n]) != id+"\n" {
				t.Errorf("read %q, %v", buf[:max(n, 0)], err)
			}
		}
		e.ClosePipes()
	}
	over("c")
	if k.Remind() {
		t.Error("something is left to be handed out")
	}
}

// withoutDescriptors calls a function while no more can be had above those of the
// test itself.
func withoutDescriptors(t *testing.T, call func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: maxFiles, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	call()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
}

// endsIn returns the ends that a file of records tells of.
func endsIn(t *testing.T, path string) (ends []Status) {
	t.Helper()
	copied := recordsFile(t)
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(copied, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	j, list, err := journal.Open(copied, recordsMagic)
	if err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := decodeRecords(list, boot)
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if task.dead {
			ends = append(ends, task.end.status)
		}
	}
	return ends
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte{6, 1, 'a', 1, 0}, []byte{10, 1, 'a', 8, 0, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, one, two []byte) {
		_, _ = decodeRecords([][]byte{encode(recordBoot, "x"), one, two}, "x")
	})
}
