package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the want-… files of scripts whose cmp fails")

// TestMain makes this test binary three programs: the tests, pm, and activate. So
// pm under test counts for coverage and the race detector.
func TestMain(m *testing.M) {
	if os.Getenv("GORACE") == "" {
		// The race detector makes every program wait a second at its end.
		_ = os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
	testscript.Main(tests{m}, map[string]func(){"pm": pm, "activate": activate})
}

// tests are what this binary runs when it is neither pm nor activate.
type tests struct{ *testing.M }

// Run runs them.
func (m tests) Run() int {
	adoptOrphans()
	if err := buildActor(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.M.Run()
}

// buildActor puts actor beside pm. Scripts start hundreds of actors, which is why it is a
// program of its own: one that has the race detector starts in ten times as long.
func buildActor() error {
	build := exec.Command("go", "build", "-o", commandDir(), "pm.example/cmd/actor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build what scripts run: %w\n%s", err, out)
	}
	return nil
}

// testerEnv names the process that a pm must not outlive, if that is not its
// parent. In scripts it is the test: a worker whose keeper was killed on purpose
// would take itself for left over, and end, just before it becomes the keeper.
const testerEnv = "PM_TESTER"

// pm is the product. A daemon must not outlive a test that was killed, so it is
// told to end, as a user would, once its parent is gone; or if there is a tester,
// which may well kill its parent, once that is.
func pm() {
	parent := os.Getppid()
	alive := func() bool { return os.Getppid() == parent }
	if tester, err := strconv.Atoi(os.Getenv(testerEnv)); err == nil && os.Getpid() != 1 { // else the tester is in another pid namespace
		alive = func() bool { return syscall.Kill(tester, 0) != syscall.ESRCH } // it may have no descriptor left for /proc
	}
	go func() { // ends with the process
		orders := 0
		for range time.Tick(500 * time.Millisecond) {
			if alive() {
				continue
			}
			_ = syscall.Kill(os.Getpid(), syscall.SIGTERM) // the second kills what does not stop
			if orders++; orders > 10 {
				os.Exit(1)
			}
		}
	}()
	main()
}

// TestScripts runs the specification: every file of testdata/scripts.
func TestScripts(t *testing.T) {
	t.Cleanup(func() { noneOfOurs(t) })
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "scripts"),
		Setup:               setup,
		Condition:           condition,
		Cmds:                commands,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// testKey is where a script's values have its testing.TB.
type testKey struct{}

// longest is what a script may take on a busy machine.
const longest = 3 * time.Minute

// setup gives a script its own socket, state and home, and checks at its end
// that nothing of it is left.
func setup(e *testscript.Env) error {
	dir, err := os.MkdirTemp(shortTemp(), "pm")
	if err != nil {
		return err
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return err
	}
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.Mkdir(home, 0o755); err != nil {
		return err
	}
	for key, value := range map[string]string{
		"PM_SOCKET":    filepath.Join(dir, "s"),
		"PM_PATIENCE":  "1m", // a daemon may take long to start on a busy machine
		"PM_STATE_DIR": filepath.Join(e.WorkDir, ".state"),
		"PM_SCRIPT":    e.WorkDir, // marks every process of this script
		testerEnv:      strconv.Itoa(os.Getpid()),
		"ROOT":         root, // for the project's own examples
		"HOME":         home,
		"TZ":           "UTC",
		"NO_COLOR":     "1",
	} {
		e.Setenv(key, value)
	}
	received := &receivers{open: map[string]*receiver{}}
	e.Values[receiversKey{}] = received
	e.Defer(received.endAll)
	t := e.T().(testing.TB)
	e.Values[testKey{}] = t
	// testscript would wait for ever for a process that holds a stream open.
	watchdog := time.AfterFunc(longest, func() {
		t.Errorf("not done after %s; killing %s", longest, strings.Join(describe(processesOf(e.WorkDir)), ", "))
		killAll(func() []int { return processesOf(e.WorkDir) })
	})
	e.Defer(func() { // the first, so it runs last
		watchdog.Stop()
		_ = os.RemoveAll(dir)
		noneLeft(t, e.WorkDir)
	})
	return nil
}

// shortTemp is where a socket's path stays below the kernel's 107 bytes.
func shortTemp() string {
	const fits = 60
	if dir := os.TempDir(); len(dir) <= fits {
		return dir
	}
	return "/tmp"
}

// noneLeft fails the test if processes of the script that works in dir live,
// and kills them. A script that has already failed may leave some.
func noneLeft(t testing.TB, dir string) {
	left := processesOf(dir)
	if len(left) == 0 {
		return
	}
	if !t.Failed() {
		t.Errorf("processes outlived the script: %s", strings.Join(describe(left), ", "))
	}
	killAll(func() []int { return processesOf(dir) })
}

// noneOfOurs fails the test if any process of any script lives that hides from
// noneLeft by another directory and another environment: it runs a program of
// this test binary, or has lost its parent and come to this process.
func noneOfOurs(t *testing.T) {
	bin := commandDir()
	ours := func() []int {
		adopted := orphans()
		return processes(func(pid int) bool {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			return slices.Contains(adopted, pid) || err == nil && bin != "" && filepath.Dir(exe) == bin
		})
	}
	left := ours()
	if len(left) == 0 {
		return
	}
	t.Errorf("processes outlived all scripts: %s", strings.Join(describe(left), ", "))
	killAll(ours)
}

// commandDir is where testscript.Main has put pm, and buildActor actor: first in PATH.
func commandDir() string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if len(dirs) == 0 {
		return ""
	}
	return dirs[0]
}

// needs are what some scripts need of the machine. With PM_TEST_ALL set, as on
// CI, a script that would be left out for want of it fails instead.
var needs = map[string]func() bool{
	"aiosmtpd": func() bool { return smtpPython() != "" },
	"consul":   func() bool { return installed("consul") },
	"nginx":    func() bool { return installed("nginx") },
	"promtool": func() bool { return installed("promtool") },
	"rsyslogd": func() bool { return installed("rsyslogd") },
	"rsyslog-tls": func() bool {
		drivers, _ := filepath.Glob("/usr/lib/*/rsyslog/lmnsd_gtls.so")
		return installed("rsyslogd") && len(drivers) > 0
	},
	"systemd": func() bool { return installed("systemd-analyze") },
}

// condition decides [root], [race], [freezer], [consul], [aiosmtpd], [nginx],
// [promtool], [rsyslogd], [rsyslog-tls], [systemd], and [manager] where units can also be run.
func condition(name string) (bool, error) {
	if have, ok := needs[name]; ok {
		if !have() && os.Getenv("PM_TEST_ALL") != "" {
			return false, fmt.Errorf("%s is not installed, and PM_TEST_ALL asks for all scripts", name)
		}
		return have(), nil
	}
	switch name {
	case "manager": // CI may lack the rights
		return installed("systemd-analyze") && os.Geteuid() == 0 && managesUnits(), nil
	case "freezer": // a machine with cgroups of version 2 alone has none
		return freezes(), nil
	case "root":
		return os.Geteuid() == 0, nil
	case "race":
		info, ok := debug.ReadBuildInfo()
		return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}), nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}
