package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How the adversary of proc/testdata is fought. By hand:
//
//	go test ./cmd/pm -run TestAdversary -v -trials 200 -crowd 200 -timeout 5h
var (
	trials = flag.Int("trials", 3, "how often the adversary is fought in each way")
	crowd  = flag.Int("crowd", 60, "how many processes the adversary has")
	pause  = flag.Duration("pause", 200*time.Millisecond, "how long a process of it rests at most; 0 is a fork bomb")
)

// fighter is who runs pm against the adversary.
type fighter struct {
	name    string
	uid     uint32 // 0: root
	cgroups bool   // pm can make cgroups
}

// arena is where a fighter meets the adversary: a directory with all they need,
// and the means to start pm as the fighter.
type arena struct {
	*testing.T
	fighter
	dir    string
	cgroup *os.File // where pm is born; nil: where the test is
}

// A tree of processes that double fork, leave their session, clear their
// environment, rename and stop themselves and ignore every signal leaves nobody
// behind, however it comes to its end, and whoever runs pm.
func TestAdversary(t *testing.T) {
	withoutSubreaper(t)
	built := buildAdversary(t)
	for _, who := range fighters() {
		t.Run(who.name, func(t *testing.T) {
			a := newArena(t, who, built)
			t.Run("exec", func(t *testing.T) { a.in(t).execs() })
			t.Run("stop", func(t *testing.T) { a.in(t).stops() })
			t.Run("shutdown", func(t *testing.T) { a.in(t).shutdowns() })
		})
	}
}

// fighters are those that this user can be. An ordinary user has cgroups where
// somebody has given it one, as systemd does.
func fighters() []fighter {
	if uid := os.Getuid(); uid != 0 {
		return []fighter{{"user", uint32(uid), false}}
	}
	nobody := 100_000 + uint32(os.Getpid()) // a user that nobody else is
	all := []fighter{{"root", 0, false}, {"user", nobody, false}}
	if cgroupHere() != "" {
		all = append(all, fighter{"root with cgroups", 0, true}, fighter{"user with cgroups", nobody, true})
	}
	return all
}

// withoutSubreaper lets orphans of this process's children go to the first
// process of the machine, for the time of the test, as they do for most users.
func withoutSubreaper(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

func buildAdversary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adversary")
	source := filepath.Join("..", "..", "proc", "testdata", "adversary.c")
	if out, err := exec.Command("cc", "-O1", "-Wall", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("cannot build the adversary (it needs cc): %v\n%s", err, out)
	}
	return path
}

// newArena makes a directory that belongs to the fighter, with pm, actor and the
// adversary in it, since the test's own is closed to others.
func newArena(t *testing.T, who fighter, adversary string) *arena {
	t.Helper()
	dir, err := os.MkdirTemp(shortTemp(), "pm")
	if err != nil {
		t.Fatal(err)
	}
	a := &arena{T: t, fighter: who, dir: dir}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, from := range map[string]string{"pm": a.find("pm"), "actor": a.find("actor"), "adversary": adversary} {
		a.check(copyFile(from, filepath.Join(dir, name)))
	}
	a.check(os.Chown(dir, int(who.uid), -1))
	if who.cgroups && who.uid != 0 {
		a.cgroup = a.ownCgroup()
	}
	return a
}

func (a *arena) in(t *testing.T) *arena {
	inner := *a
	inner.T = t
	return &inner
}

func (a *arena) check(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

func (a *arena) find(name string) string {
	a.Helper()
	path, err := exec.LookPath(name)
	a.check(err)
	return path
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// cgroupHere is the directory of this process's own cgroup of version 2, if it
// may make others in it; empty otherwise.
func cgroupHere() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	own, _ := os.ReadFile("/proc/self/cgroup")
	_, path, found := strings.Cut(string(own), "0::")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if found && len(fields) > 2 && fields[2] == "cgroup2" {
			path, _, _ = strings.Cut(path, "\n")
			if dir := filepath.Join(fields[1], path); unix.Access(dir, unix.W_OK) == nil {
				return dir
			}
		}
	}
	return ""
}

// ownCgroup makes a cgroup that the fighter may divide.
func (a *arena) ownCgroup() *os.File {
	a.Helper()
	dir, err := os.MkdirTemp(cgroupHere(), "test-pm-")
	a.check(err)
	a.Cleanup(func() { _ = os.Remove(dir) })
	for _, path := range []string{dir, filepath.Join(dir, "cgroup.procs")} {
		a.check(os.Chown(path, int(a.uid), -1))
	}
	f, err := os.Open(dir)
	a.check(err)
	a.Cleanup(func() { _ = f.Close() })
	return f
}

// pm is the command that runs pm with these arguments as the fighter.
func (a *arena) pm(args ...string) *exec.Cmd {
	words := append([]string{filepath.Join(a.dir, "pm")}, args...)
	if a.uid == 0 && !a.cgroups && cgroupHere() != "" {
		const hide = `for m in $(sed -n 's/^cgroup2 \([^ ]*\) .*/\1/p' /proc/mounts); do umount -l $m; done; exec "$@"`
		words = append([]string{"unshare", "--mount", "sh", "-c", hide, "sh"}, words...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = a.dir
	cmd.Env = []string{
		"PATH=" + a.dir + ":" + os.Getenv("PATH"), "HOME=" + a.dir, "GORACE=atexit_sleep_ms=10",
		"PM_SOCKET=" + filepath.Join(a.dir, "s"), "PM_STATE_DIR=" + filepath.Join(a.dir, "state"), "PM_SCRIPT=" + a.dir,
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a.uid != uint32(os.Getuid()) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.uid}
	}
	if a.cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(a.cgroup.Fd())
	}
	return cmd
}

// run runs pm to its end and returns what it has printed.
func (a *arena) run(args ...string) string {
	a.Helper()
	out, err := a.pm(args...).CombinedOutput()
	if err != nil {
		a.Fatalf("pm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// foe is one tree of the adversary.
type foe struct {
	*arena
	file string // that all of it map
	mark uint64 // a limit on file locks, which the kernel has long ceased to look at; all of it inherit it
}

func (a *arena) foe() *foe {
	a.Helper()
	mark := uint64(os.Getpid())<<32 | uint64(uint32(time.Now().UnixNano()))
	f := &foe{arena: a, file: filepath.Join(a.dir, fmt.Sprintf("foe%d", mark)), mark: mark}
	f.reset()
	a.check(os.Chmod(f.file, 0o666))
	a.Cleanup(func() { killAll(f.living) }) // of a failed test
	return f
}

// reset makes the file as it is before the first of the tree.
func (f *foe) reset() {
	f.Helper()
	f.check(os.WriteFile(f.file, make([]byte, 4096), 0o666))
}

// words is the command that starts the tree.
func (f *foe) words() []string {
	return []string{filepath.Join(f.dir, "adversary"), f.file, strconv.Itoa(*crowd), strconv.FormatInt(pause.Microseconds(), 10)}
}

// await waits until the tree has its size and can be seen: so the test is not
// blind. A look at so many that come and go takes time, and misses some.
func (f *foe) await() {
	f.Helper()
	for deadline := time.Now().Add(patience); f.size() < *crowd*9/10 || len(f.living()) < *crowd/2; <-time.After(pollEvery) {
		if time.Now().After(deadline) {
			f.Fatalf("the adversary has %d processes after %s, and %d are seen", f.size(), patience, len(f.living()))
		}
	}
}

// size is how many the adversary itself takes for living.
func (f *foe) size() int {
	f.Helper()
	data, err := os.ReadFile(f.file)
	f.check(err)
	return int(binary.NativeEndian.Uint32(data[4:]))
}

// living lists the processes of the tree.
func (f *foe) living() []int {
	return processes(func(pid int) bool { return lockLimit(pid) == f.mark })
}

// gone fails the test if any process of the tree lives.
func (f *foe) gone() {
	f.Helper()
	if left := f.living(); len(left) > 0 {
		f.Fatalf("%d survivors: %s", len(left), strings.Join(describe(left), ", "))
	}
}

// lockLimit is the limit on file locks of a process.
func lockLimit(pid int) uint64 {
	var limit unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_LOCKS, nil, &limit); err != unix.EPERM {
		return limit.Cur
	}
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	_, rest, _ := bytes.Cut(data, []byte("Max file locks"))
	if fields := bytes.Fields(rest); len(fields) > 0 {
		n, _ := strconv.ParseUint(string(fields[0]), 10, 64)
		return n
	}
	return 0
}

// execs fights under pm exec, which is ended in each of three ways in turn.
func (a *arena) execs() {
	begin := time.Now()
	for n := range *trials {
		switch n % 3 {
		case 0:
			a.execTerm()
		case 1:
			a.execTimeout()
		case 2:
			a.execOwnEnd()
		}
	}
	a.Logf("%d trials in %s", *trials, time.Since(begin).Round(time.Millisecond))
}

func (a *arena) execTerm() {
	f := a.foe()
	b := f.exec(f.words())
	f.await()
	a.check(b.cmd.Process.Signal(syscall.SIGTERM))
	b.ends(128 + int(syscall.SIGKILL))
}

// execTimeout ends the tree when its time is up, however large it then is.
func (a *arena) execTimeout() {
	f := a.foe()
	f.exec(f.words(), "--timeout", "700ms").ends(8)
}

// execOwnEnd ends the tree because its leader ends.
func (a *arena) execOwnEnd() {
	f := a.foe()
	b := f.exec(append([]string{"sh", "-c", `"$@" & read line; exit 3`, "sh"}, f.words()...))
	f.await()
	a.check(b.stdin.Close())
	b.ends(3)
}

// bout is one run of pm exec.
type bout struct {
	*foe
	cmd    *exec.Cmd
	stdin  io.Closer
	output *os.File // a pipe that all of the tree may hold
	stderr string   // a file
}

// exec starts a command under pm exec.
func (f *foe) exec(words []string, flags ...string) *bout {
	f.Helper()
	args := append([]string{"exec", "--stoptime", "50ms", "--limits.locks", strconv.FormatUint(f.mark, 10)}, flags...)
	b := &bout{foe: f, cmd: f.pm(append(append(args, "--"), words...)...)}
	read, write, err := os.Pipe()
	f.check(err)
	b.output, b.cmd.Stdout = read, write
	b.stderr = f.file + ".stderr"
	messages, err := os.Create(b.stderr)
	f.check(err)
	b.cmd.Stderr = messages
	b.stdin, err = b.cmd.StdinPipe()
	f.check(err)
	f.check(b.cmd.Start())
	f.check(write.Close())
	f.check(messages.Close())
	f.Cleanup(func() { _ = b.cmd.Process.Kill() }) // of a failed test
	return b
}

// ends waits for pm to end with this exit code. Nobody of the tree may then live
// or hold the pipe.
func (b *bout) ends(code int) {
	b.Helper()
	_ = b.cmd.Wait()
	b.gone()
	if got := b.cmd.ProcessState.ExitCode(); got != code {
		said, _ := os.ReadFile(b.stderr)
		b.Fatalf("pm exec: %s, want exit status %d; it said: %s", b.cmd.ProcessState, code, said)
	}
	b.check(b.output.SetReadDeadline(time.Now().Add(patience)))
	if _, err := io.Copy(io.Discard, b.output); err != nil {
		b.Fatalf("somebody holds the output: %v", err)
	}
	b.check(b.output.Close())
}

// daemon runs pm daemon over two trees of the adversary, beside a program that
// must not notice.
type daemon struct {
	*arena
	cmd  *exec.Cmd
	foes []*foe
}

func (a *arena) daemon() *daemon {
	a.Helper()
	d := &daemon{arena: a, foes: []*foe{a.foe(), a.foe()}}
	var text strings.Builder
	text.WriteString("[programs.bystander]\ncmd = \"actor\"\nstarttime = 0\n")
	for n, f := range d.foes {
		fmt.Fprintf(&text, "[programs.foe%d]\ncmd = %s\nstarttime = 0\nstoptime = 0.05\nlimits.locks = %d\nautostart = false\n",
			n, strings.ReplaceAll(fmt.Sprintf("%q", f.words()), `" "`, `", "`), f.mark)
	}
	config := filepath.Join(a.dir, "pm.toml")
	a.check(os.WriteFile(config, []byte(text.String()), 0o644))
	d.cmd = a.pm("daemon", "-c", config, "--log", filepath.Join(a.dir, "log"))
	d.cmd.Stderr = os.Stderr
	a.check(d.cmd.Start())
	a.Cleanup(func() { noneLeft(a, a.dir) }) // of a failed test
	a.run("wait", "bystander")
	return d
}

// meet starts the trees anew and waits until they have their size.
func (d *daemon) meet() {
	d.Helper()
	for _, f := range d.foes {
		f.reset()
	}
	d.run("start", "foe*")
	for _, f := range d.foes {
		f.await()
	}
}

func (d *daemon) gone() {
	d.Helper()
	for _, f := range d.foes {
		f.gone()
	}
}

// stops fights under one daemon that is told to stop the trees, again and again:
// both at once, or one while the other goes on.
func (a *arena) stops() {
	begin := time.Now()
	d := a.daemon()
	bystander := d.run("pid", "bystander")
	for n := range *trials {
		d.meet()
		if n%2 == 1 {
			d.run("stop", "foe0")
			d.foes[0].gone()
			d.foes[1].await()
		}
		d.run("stop", "foe*")
		d.gone()
	}
	if now := d.run("pid", "bystander"); now != bystander {
		a.Errorf("the bystander was %s, and is %s", bystander, now)
	}
	d.run("shutdown")
	d.ends()
	a.Logf("%d trials in %s", *trials, time.Since(begin).Round(time.Millisecond))
}

// shutdowns fights under daemons that end, by order and by signal in turn.
func (a *arena) shutdowns() {
	begin := time.Now()
	for n := range *trials {
		d := a.daemon()
		d.meet()
		if n%2 == 0 {
			d.run("shutdown")
		} else {
			a.check(d.cmd.Process.Signal(syscall.SIGTERM))
		}
		d.ends()
	}
	a.Logf("%d trials in %s", *trials, time.Since(begin).Round(time.Millisecond))
}

// ends waits for the daemon to end, after which nothing of it may live.
func (d *daemon) ends() {
	d.Helper()
	err := d.cmd.Wait()
	d.gone()
	d.check(err)
	noneLeft(d, d.dir)
}
