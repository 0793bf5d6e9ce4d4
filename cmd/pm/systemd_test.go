package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// managerScript becomes a service manager for units of its own only. It needs a
// cgroup, which it takes for the whole machine, and a /run in which a system
// seems to have been booted by systemd.
const managerScript = `
set -e
for dir in $CGROUPS; do
	mkdir $dir
	echo $$ >$dir/cgroup.procs
done
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
unset CGROUPS
exec /lib/systemd/systemd --user --unit=test.target --log-target=console
`

// targets are units that a manager and those under test refer to.
var targets = []string{"test", "basic", "sockets", "timers", "paths", "default", "shutdown"}

// exitUnits end the manager when everything has been stopped.
var exitUnits = map[string]string{
	"exit.target":          "[Unit]\nDefaultDependencies=no\nRequires=systemd-exit.service\nAfter=systemd-exit.service\nAllowIsolate=yes\n",
	"systemd-exit.service": "[Unit]\nDefaultDependencies=no\nRequires=shutdown.target\nAfter=shutdown.target\nSuccessAction=exit-force\n[Service]\nType=oneshot\nSlice=-.slice\nExecStart=/bin/true\n",
}

// cmdSystemd starts a service manager with the units of packaging/user, and
// those in the script's directory units, for systemctl --user.
func cmdSystemd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "systemd")
	units, runtimeDir := ts.MkAbs("units"), filepath.Join(filepath.Dir(ts.Getenv("PM_SOCKET")), "run")
	ts.Check(installUnits(units))
	ts.Check(os.MkdirAll(runtimeDir, 0o700))
	ts.Setenv("XDG_RUNTIME_DIR", runtimeDir)
	ts.Setenv("XDG_CONFIG_HOME", ts.MkAbs("config"))
	ts.Setenv("SYSTEMD_UNIT_PATH", units)
	ts.Setenv("PM_SOCKET", filepath.Join(runtimeDir, "pm", "pm.sock"))
	var cgroups []string
	for _, hierarchy := range cgroupHierarchies() {
		cgroups = append(cgroups, filepath.Join(hierarchy, "pm-test-"+filepath.Base(filepath.Dir(runtimeDir))))
	}
	ts.Setenv("CGROUPS", strings.Join(cgroups, " "))
	log, err := os.Create(ts.MkAbs("systemd.log"))
	ts.Check(err)
	manager := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", managerScript)
	manager.Env, manager.Stdout, manager.Stderr = managerEnviron(ts), log, log
	manager.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun, ended := make(chan error, 1), make(chan struct{})
	go func() { // ends with the manager
		runtime.LockOSThread() // the manager is to die with this process, not with a thread of it
		defer close(ended)
		err := manager.Start()
		begun <- err
		if err == nil {
			_ = manager.Wait()
		}
	}()
	ts.Check(<-begun)
	ts.Defer(func() {
		_ = manager.Process.Kill()
		<-ended
		_ = log.Close()
		noneLeft(ts.Value(testKey{}).(testing.TB), ts.Getenv("WORK"))
		for _, dir := range cgroups {
			removeCgroups(dir)
		}
	})
	poll(ts, "systemd", func() (bool, string) {
		select {
		case <-ended:
			ts.Fatalf("the service manager has ended: %s", ts.ReadFile("systemd.log"))
		default:
		}
		return exists(ts, []string{filepath.Join(runtimeDir, "systemd", "private")}), ts.ReadFile("systemd.log")
	})
}

// installUnits puts the units of the project into dir, with the pm under test.
func installUnits(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name, text string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) }
	for _, name := range targets {
		if err := write(name+".target", "[Unit]\nDefaultDependencies=no\n"); err != nil {
			return err
		}
	}
	for _, name := range []string{"pm.service", "pm.socket"} {
		data, err := os.ReadFile(filepath.Join(top, "packaging", "user", name))
		if err != nil {
			return err
		}
		if err := write(name, strings.ReplaceAll(string(data), "/usr/local/bin", commandDir())); err != nil {
			return err
		}
	}
	for name, text := range exitUnits {
		if err := write(name, text); err != nil {
			return err
		}
	}
	dropIn := filepath.Join(dir, "pm.service.d")
	if err := os.MkdirAll(dropIn, 0o755); err != nil {
		return err
	}
	// A service has a PATH of its own.
	path := fmt.Sprintf("[Service]\nEnvironment=PATH=%s\n", os.Getenv("PATH"))
	return os.WriteFile(filepath.Join(dropIn, "path.conf"), []byte(path), 0o644)
}

// managerEnviron is the environment that a script gives to the service manager.
func managerEnviron(ts *testscript.TestScript) (environ []string) {
	for _, key := range []string{
		"PATH", "HOME", "TMPDIR", "TZ", "GORACE", "GOCOVERDIR", "PM_SOCKET", "PM_STATE_DIR", "PM_SCRIPT", "WORK", testerEnv,
		"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SYSTEMD_UNIT_PATH", "CGROUPS",
	} {
		if value := ts.Getenv(key); value != "" {
			environ = append(environ, key+"="+value)
		}
	}
	return environ
}

// cgroupHierarchies returns where the service manager has to have a cgroup.
func cgroupHierarchies() []string {
	return slices.DeleteFunc([]string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"}, func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "cgroup.procs"))
		return err != nil
	})
}

// removeCgroups removes a cgroup and those in it, once the last who have died in
// them are gone.
func removeCgroups(dir string) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(pollEvery) {
		var all []string
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, path := range slices.Backward(all) {
			_ = os.Remove(path)
		}
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return
		}
	}
}

// managesUnits reports whether a service manager can be had here: that takes the
// right to mount, and to make cgroups.
func managesUnits() bool {
	hierarchies := cgroupHierarchies()
	for _, hierarchy := range hierarchies {
		dir := filepath.Join(hierarchy, fmt.Sprint("pm-test-", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return false
		}
		_ = os.Remove(dir)
	}
	return len(hierarchies) > 0 && exec.Command("unshare", "--mount", "true").Run() == nil
}
