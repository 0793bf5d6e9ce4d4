package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// freezer is where cgroups of version 1 freeze processes: these are then in state
// D, and no signal reaches them, not even SIGKILL. Nothing else does that to a
// process at will.
const freezer = "/sys/fs/cgroup/freezer"

// freezes reports whether this process may freeze others.
func freezes() bool {
	dir, err := os.MkdirTemp(freezer, "pm-test-")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	_, err = os.Stat(filepath.Join(dir, "freezer.state"))
	return err == nil
}

// cmdFreeze is "freeze PID|FILE", and with neg it thaws the process.
func cmdFreeze(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, "[!] freeze PID|FILE")
	number, err := pidIn(ts, args[0])
	ts.Check(err)
	pid := strconv.Itoa(number)
	dir := filepath.Join(freezer, "pm-test-"+pid)
	if neg {
		ts.Check(thaw(dir))
		return
	}
	ts.Check(os.Mkdir(dir, 0o755))
	ts.Defer(func() { _ = thaw(dir) })
	ts.Check(os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid), 0))
	deadline := time.Now().Add(patience)
	for {
		ts.Check(os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("FROZEN"), 0))
		state, err := os.ReadFile(filepath.Join(dir, "freezer.state"))
		ts.Check(err)
		if strings.TrimSpace(string(state)) == "FROZEN" {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("process %s is %s, not frozen", pid, strings.TrimSpace(string(state)))
		}
		<-time.After(pollEvery)
	}
}

// thaw lets what is frozen in dir go on, and removes dir. It may be called twice.
func thaw(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	for deadline := time.Now().Add(patience); ; {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			return err
		}
		for pid := range strings.FieldsSeq(string(procs)) {
			_ = os.WriteFile(filepath.Join(freezer, "cgroup.procs"), []byte(pid), 0) // it may have ended
		}
		err = os.Remove(dir)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-time.After(pollEvery) // one is about to end
	}
}
