package proc

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	trials = flag.Int("trials", 5, "how often the adversary is fought")
	crowd  = flag.Int("crowd", 200, "how many processes the adversary has")
)

// buildAdversary compiles the adversary once.
var buildAdversary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pm-adversary")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "adversary")
	attr := &os.ProcAttr{Files: []*os.File{nil, os.Stderr, os.Stderr}, Env: os.Environ()}
	cc, err := os.StartProcess("/usr/bin/cc", []string{"cc", "-O1", "-Wall", "-o", path, "testdata/adversary.c"}, attr)
	if err != nil {
		return "", err
	}
	state, err := cc.Wait()
	if err == nil && !state.Success() {
		err = fmt.Errorf("cc: %s", state)
	}
	return path, errorsJoin(err, os.Chmod(dir, 0o755))
})

func errorsJoin(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if path, err := buildAdversary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// arena is the file that all processes of one adversary map.
type arena struct {
	t    *testing.T
	path string
}

func newArena(t *testing.T) *arena {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		_ = os.Chmod(d, 0o755)
	}
	a := &arena{t, filepath.Join(dir, "arena")}
	if err := os.WriteFile(a.path, make([]byte, 4096), 0o666); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(a.path, 0o666)
	t.Cleanup(func() {
		for pids := a.survivors(); len(pids) > 0; pids = a.survivors() { // of a failed test
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	})
	return a
}

// await waits until the adversary has its population.
func (a *arena) await(n int) {
	a.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		data, err := os.ReadFile(a.path)
		if err != nil {
			a.t.Fatal(err)
		}
		if living := int(binary.NativeEndian.Uint32(data[4:])); living >= n {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("the adversary did not reach %d processes", n)
		}
		runtime.Gosched()
	}
}

// survivors finds the processes that map the arena. Without privileges the maps
// of those that made themselves undumpable cannot be read; then it finds all of
// this test's own user, which nobody else is.
func (a *arena) survivors() (pids []int) {
	file, mark := "/maps", a.path
	if uid := os.Getuid(); uid != 0 {
		file, mark = "/status", fmt.Sprintf("\nUid:\t%d\t", uid)
	}
	_ = eachPID("/proc", func(pid int) {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + file)
		if err == nil && bytes.Contains(text, []byte(mark)) && pid != os.Getpid() && !isZombie(pid) {
			pids = append(pids, pid)
		}
	})
	return pids
}

// The adversary leaves no survivor when its tree is killed, whoever pm is.
func TestAdversary(t *testing.T) {
	path, err := buildAdversary()
	if err != nil {
		t.Fatalf("cannot build the adversary (it needs cc): %v", err)
	}
	k, err := NewKeeper(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	in := &inbox{t: t, k: k}
	for trial := range *trials {
		a := newArena(t)
		id := fmt.Sprintf("adversary-%d", trial)
		k.Spawn(id, 0, run(path, a.path, strconv.Itoa(*crowd), "1000000"))
		in.next(id, Spawned)
		a.await(*crowd * 9 / 10)
		if n := len(a.survivors()); n < *crowd/2 {
			t.Fatalf("trial %d: only %d processes are seen: the test itself is blind", trial, n)
		}
		begin := time.Now()
		k.Terminate(id, 1, syscall.SIGTERM, nil) // which it ignores
		k.Kill(id)
		in.next(id, Exited)
		for {
			e := in.any(id)
			if e.Kind == Empty {
				break
			}
			t.Logf("trial %d: %v", trial, e.Survivors)
		}
		t.Logf("trial %d: %d processes ended in %s", trial, *crowd, time.Since(begin).Round(time.Millisecond))
		if left := a.survivors(); len(left) > 0 {
			t.Fatalf("trial %d: %d survivors: %v", trial, len(left), left)
		}
		k.Release(id)
	}
}

// The same as an ordinary user, without any privilege.
func TestAdversaryUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		return // TestAdversary is it already
	}
	if _, err := buildAdversary(); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "pm-nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "proc.test")
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/adversary.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(copied, data, 0o755), os.Mkdir(filepath.Join(dir, "testdata"), 0o755),
		os.WriteFile(filepath.Join(dir, "testdata", "adversary.c"), source, 0o644), os.Chmod(dir, 0o777),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	nobody := uint32(100_000 + os.Getpid()) // a user of its own
	child, err := os.StartProcess(copied, []string{
		"proc.test", "-test.run", "^TestAdversary$", "-test.v",
		"-trials", strconv.Itoa(*trials), "-crowd", strconv.Itoa(*crowd),
	}, &os.ProcAttr{
		Dir: dir, Env: []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + dir, "HOME=" + dir},
		Files: []*os.File{nil, os.Stderr, os.Stderr},
		Sys:   &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}},
	})
	if err != nil {
		t.Fatal(err)
	}
	state, err := child.Wait()
	if err != nil || !state.Success() {
		t.Errorf("as nobody: %v, %v", state, err)
	}
}

// SignalTree ends trees that pm did not start, also hostile ones.
func TestSignalTreeKillsForeignTrees(t *testing.T) {
	sh, err := os.StartProcess("/bin/sh", []string{"sh", "-c", `trap "" TERM; (trap "" TERM; sleep 1000) & sleep 1000 & setsid sleep 1000 & exec sleep 1000`}, &os.ProcAttr{Env: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { defer close(reaped); _, _ = sh.Wait() }() // ends with the shell
	for deadline := time.Now().Add(20 * time.Second); treeSize(t, sh.Pid) < 4; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("the tree did not grow")
		}
	}
	dry, err := SignalTree(t.Context(), []int{sh.Pid}, TreeSignal{Signal: unix.SIGTERM, DryRun: true})
	if err != nil || len(dry.Members) != 4 || dry.Left != 0 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	report, err := SignalTree(t.Context(), []int{sh.Pid, 1 << 22}, TreeSignal{Signal: unix.SIGTERM, Exclude: []string{"SLEEP"}, Kill: true, Grace: 50 * time.Millisecond, Timeout: 20 * time.Second})
	if err != nil || report.Left != 0 || len(report.Missing) != 1 {
		t.Errorf("report %+v, %v", report, err)
	}
	killed := 0
	for _, m := range report.Members {
		if m.Outcome == Killed || m.Outcome == Gone {
			killed++
		}
	}
	if killed < 4 {
		t.Errorf("outcomes %+v", report.Members)
	}
	<-reaped
	for _, refused := range []int{1, os.Getpid(), os.Getppid()} {
		if _, err := SignalTree(t.Context(), []int{refused}, TreeSignal{Signal: unix.SIGTERM}); err == nil {
			t.Errorf("pid %d was accepted", refused)
		}
	}
}

func treeSize(t *testing.T, pid int) int {
	t.Helper()
	report, err := SignalTree(t.Context(), []int{pid}, TreeSignal{Signal: unix.SIGTERM, DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	return len(report.Members)
}
