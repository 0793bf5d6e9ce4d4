package subcmd

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"pm.example/config"
	"pm.example/proc"
	"pm.example/runner"
)

// assemble turns the description of a program into what the runner keeps. It is
// the only place where config meets runner and proc. environ is the environment
// that the program's own is added to, and inputs the directory of the FIFOs that pm
// attach writes to.
func assemble(p *config.Program, environ []string, inputs string) (*runner.Program, error) {
	stop, err := stopSteps(p)
	if err != nil {
		return nil, err
	}
	expected, err := expectedExits(p.ExitCodes)
	if err != nil {
		return nil, err
	}
	if err := checkScrape(p); err != nil {
		return nil, err
	}
	limits, err := limitNumbers(p.Limits.Rlimits)
	if err != nil {
		return nil, err
	}
	template := proc.Command{
		Argv:  p.Cmd,
		Dir:   p.WorkingDir,
		Umask: p.Umask, Nice: p.Limits.Nice, OOMScoreAdj: p.Limits.OOMScoreAdj,
		Limits: limits,
		Stdin:  stdin(p.Stdin),
		Stdout: stdout(p, p.Stdout, os.Stdout),
		Stderr: stderr(p),
	}
	return &runner.Program{
		Name: p.Name, Group: p.Group, NumProcs: p.NumProcs, Priority: p.Priority,
		Oneshot: p.Type == "oneshot", Autostart: p.Autostart, StopOrphan: p.OnDaemonDeath == "stop", Restart: restartPolicy(p.Autorestart),
		Expected: expected, StartTime: p.StartTime, StartRetries: p.StartRetries,
		Backoff: runner.Backoff(p.Backoff),
		Foresee: len(p.EnvFile) == 0,
		Stop:    stop, Exclude: p.Kill.Exclude,
		Command: func(index int) (*proc.Command, error) {
			c, err := launchCommand(p, template, environ, index)
			if err == nil && p.Stdin == config.Attached {
				c.Stdin = proc.Stdio{Kind: proc.Fifo, Path: inputFile(inputs, p.Name, index)}
			}
			return c, err
		},
	}, nil
}

// assembleAll assembles every program of a file.
func assembleAll(f *config.File, environ []string, inputs string) ([]*runner.Program, error) {
	programs := make([]*runner.Program, 0, len(f.Programs))
	for _, p := range f.Programs {
		program, err := assemble(p, environ, inputs)
		if err != nil {
			return nil, fmt.Errorf("programs.%s.%w", p.Name, err)
		}
		programs = append(programs, program)
	}
	return programs, nil
}

// launchCommand completes the template for one launch: who to be, and the
// environment, whose files are read now.
func launchCommand(p *config.Program, template proc.Command, environ []string, index int) (*proc.Command, error) {
	c := template
	c.Common = environ
	env := make([]string, 0, len(p.Env)+8)
	if p.User != "" {
		who, home, err := lookupUser(p.User)
		if err != nil {
			return nil, &proc.SpawnError{Doing: "user " + strconv.Quote(p.User), Err: err}
		}
		c.User = who
		env = append(env, home...)
	}
	for _, path := range p.EnvFile {
		lines, err := readEnvFile(path)
		if err != nil {
			return nil, &proc.SpawnError{Doing: "env_file " + strconv.Quote(strings.TrimPrefix(path, "-")), Err: err}
		}
		env = append(env, lines...)
	}
	if len(p.Env) > 0 {
		for _, key := range slices.Sorted(maps.Keys(p.Env)) { // the same order each time
			env = append(env, key+"="+p.Env[key])
		}
	}
	c.Env = append(env, "PM_PROGRAM="+p.Name, "PM_INSTANCE="+config.InstanceName(p, index), "PM_INDEX="+strconv.Itoa(index))
	return &c, nil
}

// readEnvFile reads a file of KEY=value lines. One that may be missing is
// marked by a leading dash.
func readEnvFile(path string) ([]string, error) {
	name, optional := strings.CutPrefix(path, "-")
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO that nobody writes holds up no launch
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, reason(err)
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("it is a directory")
	}
	return config.ParseEnvFile(f, name)
}

// lookupUser reads "user", "user:group" or numbers, and returns the identity
// with its supplementary groups and the variables that go with it.
func lookupUser(text string) (*proc.User, []string, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return numericUser(name, group, hasGroup)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	who := &proc.User{UID: uint32(uid), GID: uint32(gid)}
	if ids, err := u.GroupIds(); err == nil {
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				who.Groups = append(who.Groups, uint32(n))
			}
		}
	}
	if hasGroup {
		if who.GID, err = lookupGroup(group); err != nil {
			return nil, nil, err
		}
	}
	return who, []string{"HOME=" + u.HomeDir, "USER=" + u.Username, "LOGNAME=" + u.Username}, nil
}

// numericUser is an identity without an account.
func numericUser(name, group string, hasGroup bool) (*proc.User, []string, error) {
	uid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return nil, nil, errors.New("no such user")
	}
	if !hasGroup {
		return nil, nil, errors.New("no account has this number, so a group is needed too: \"" + name + ":GROUP\"")
	}
	gid, err := lookupGroup(group)
	return &proc.User{UID: uint32(uid), GID: gid}, nil, err
}

func lookupGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	gid, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("no such group %q", name)
	}
	return uint32(gid), nil
}

func stopSteps(p *config.Program) ([]runner.StopStep, error) {
	steps := p.Kill.Sequence
	if len(steps) == 0 {
		steps = []config.KillStep{{Signal: p.StopSignal, Wait: p.StopTime}}
	}
	out := make([]runner.StopStep, 0, len(steps))
	for _, s := range steps {
		sig, err := proc.ParseSignal(s.Signal)
		if err != nil {
			return nil, fmt.Errorf("stopsignal: %w", err)
		}
		out = append(out, runner.StopStep{Signal: sig, Wait: s.Wait})
	}
	return out, nil
}

func expectedExits(exits []config.Exit) ([]runner.Expected, error) {
	out := make([]runner.Expected, 0, len(exits))
	for _, e := range exits {
		var sig syscall.Signal
		if e.Signal != "" {
			var err error
			if sig, err = proc.ParseSignal(e.Signal); err != nil {
				return nil, fmt.Errorf("exitcodes: %w", err)
			}
		}
		out = append(out, runner.Expected{Signal: sig, Code: e.Code})
	}
	return out, nil
}

func limitNumbers(limits map[string]config.Rlimit) (map[int]proc.Limit, error) {
	out := make(map[int]proc.Limit, len(limits))
	for name, l := range limits {
		number, ok := proc.LimitNumber(name)
		if !ok {
			return nil, fmt.Errorf("limits.%s: no such resource limit", name)
		}
		out[number] = proc.Limit(l)
	}
	return out, nil
}

func restartPolicy(text string) runner.Restart {
	switch text {
	case "always":
		return runner.RestartAlways
	case "never":
		return runner.RestartNever
	default:
		return runner.RestartUnexpected
	}
}

func stdin(path string) proc.Stdio {
	if path == "" || path == os.DevNull || path == config.Attached {
		return proc.Stdio{}
	}
	return proc.Stdio{Kind: proc.Input, Path: path}
}

// stdout says where a program's output goes: to its file, nowhere, where pm's own
// does, or through a pipe to pm.
func stdout(p *config.Program, where string, own *os.File) proc.Stdio {
	switch {
	case where == "" || p.ThroughPM(where):
		return proc.Stdio{Kind: proc.Pipe}
	case where == "inherit":
		return proc.Stdio{Kind: proc.Descriptor, File: own}
	case where == "discard" || where == os.DevNull:
		return proc.Stdio{}
	default:
		return proc.Stdio{Kind: proc.File, Path: where}
	}
}

func stderr(p *config.Program) proc.Stdio {
	if p.Stderr == "stdout" {
		return proc.Stdio{Kind: proc.SameStdout}
	}
	return stdout(p, p.Stderr, os.Stderr)
}

// programEnviron is pm's own environment as programs get it: without what is
// meant for pm alone.
func programEnviron(environ []string) []string {
	private := []string{
		"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES",
		"JOURNAL_STREAM", "SYSTEMD_EXEC_PID",
	}
	return slices.DeleteFunc(slices.Clone(environ), func(entry string) bool {
		key, _, _ := strings.Cut(entry, "=")
		return slices.Contains(private, key)
	})
}
