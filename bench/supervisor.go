package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// load says what a supervisor is to keep, in the words of pm: the others get
// what is closest.
type load struct {
	n    int
	kind kind
}

// kind is a set of settings for a program.
type kind int

const (
	// plain programs count as started at once, are replaced at once whenever
	// they die, and have their output discarded.
	plain kind = iota
	// kept is plain with the default output: two pipes that the daemon reads.
	kept
	// defaults is pm with nothing but cmd and numprocs.
	defaults
	// crash is a loop of programs that end at once, tried again every 50 ms.
	crash
	// wild is one program, whose tree of n processes does not want to end.
	wild
	// straying is plain, but each program has started another that left its session.
	straying
	// printing is one program that prints much, into files that are rotated.
	printing
)

// supervisor is one of those that are compared.
type supervisor struct {
	name string
	path string
	// command writes what the supervisor reads, and returns how to run it.
	command func(s *session) (*exec.Cmd, error)
	// end asks the supervisor to stop all programs and end.
	end func(ctx context.Context, s *session) error
}

// The names of the supervisors, which are the columns of the table.
const (
	nameFloor       = "floor"
	namePM          = "pm"
	nameSupervisord = "supervisor"
)

// argv is what the programs of a session run.
func (s *session) argv() []string {
	switch s.load.kind {
	case crash:
		return []string{s.bench.idle, "exit-at-once", "1"}
	case wild:
		return []string{s.bench.adversary, s.arena(), strconv.Itoa(s.load.n), wildPause}
	case straying:
		return []string{s.stray()}
	case printing:
		return s.printer()
	}
	return []string{s.bench.idle, s.socket}
}

// stray is the program of straying.
func (s *session) stray() string { return filepath.Join(s.dir, "stray") }

func floorSupervisor(path string) *supervisor {
	return &supervisor{
		name: nameFloor,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			return exec.Command(path, append([]string{strconv.Itoa(s.load.n)}, s.argv()...)...), nil
		},
		end: func(_ context.Context, s *session) error { return s.cmd.Process.Signal(syscall.SIGTERM) },
	}
}

// The control sockets, within a session's directory.
const (
	pmSocket          = "pm.sock"
	supervisordSocket = "supervisor.sock"
)

// cageSupervisor keeps a wild program, and takes the place of floor for that.
func cageSupervisor(path string) *supervisor {
	return &supervisor{
		name: nameFloor,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			dir, err := cgroupDir()
			if err != nil {
				return nil, err
			}
			return exec.Command(path, append([]string{filepath.Join(dir, filepath.Base(s.bench.dir)+"-"+filepath.Base(s.dir))}, s.argv()...)...), nil
		},
		end: func(_ context.Context, s *session) error { return s.cmd.Process.Signal(syscall.SIGTERM) },
	}
}

func pmSupervisor(path string) *supervisor {
	return &supervisor{
		name: namePM,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			file := filepath.Join(s.dir, "pm.toml")
			if err := os.WriteFile(file, []byte(pmConfig(s.load, s.argv())), 0o600); err != nil {
				return nil, err
			}
			cmd := exec.Command(path, "daemon", "-c", file, "--state-dir", filepath.Join(s.dir, "state"), "--log", filepath.Join(s.dir, "pm.log"))
			cmd.Env = append(environ(), pmEnv(s))
			return cmd, nil
		},
		end: func(ctx context.Context, s *session) error { return s.post(ctx, "shutdown", `{}`, nil) },
	}
}

func pmEnv(s *session) string { return "PM_SOCKET=" + filepath.Join(s.dir, pmSocket) }

// pmConfig is the file that pm reads for a load. A list of words in JSON is one
// in TOML too.
func pmConfig(l load, argv []string) string {
	cmd, _ := json.Marshal(argv) // strings only
	copies := l.n
	if l.kind == wild {
		copies = 1
	}
	config := fmt.Sprintf("[programs.idle]\ncmd = %s\nnumprocs = %d\n", cmd, copies)
	immediate := "starttime = 0\nautorestart = \"always\"\nbackoff.burst = 1000000\n"
	switch l.kind {
	case plain, straying:
		config += immediate + "stdout = \"discard\"\nstderr = \"discard\"\n"
	case kept:
		config += immediate
	case wild:
		config += "kill.sequence = [\"KILL 1s\"]\nstarttime = 0\nstdout = \"discard\"\nstderr = \"discard\"\n"
	case printing:
		config += immediate + "stdout = \"lines\"\nlogs.rotate = \"10M\"\n"
	case crash:
		config += "startretries = \"unlimited\"\nbackoff = { initial = \"50ms\", factor = 1, max = \"50ms\", burst = 1000000 }\nstdout = \"discard\"\nstderr = \"discard\"\n"
	}
	return config
}

func supervisordSupervisor(path string) *supervisor {
	return &supervisor{
		name: nameSupervisord,
		path: path,
		command: func(s *session) (*exec.Cmd, error) {
			file := filepath.Join(s.dir, "supervisord.conf")
			if err := os.WriteFile(file, []byte(supervisordConfig(s)), 0o600); err != nil {
				return nil, err
			}
			return exec.Command(path, "-n", "-c", file), nil
		},
		end: func(ctx context.Context, s *session) error {
			_, err := s.call(ctx, "supervisor.shutdown")
			return err
		},
	}
}

// supervisordConfig is the file that supervisord reads: the programs as pm has
// them, and as many descriptors as they need, since every child of supervisord
// closes all of those.
func supervisordConfig(s *session) string {
	stdout := "NONE"
	if s.load.kind == printing {
		stdout = filepath.Join(s.dir, "lines") + "\nstdout_logfile_maxbytes = 10MB\nstdout_logfile_backups = 5"
	}
	const fdsOfProgram, fdsOfSelf = 5, 64
	return fmt.Sprintf(`[supervisord]
directory = %[1]s
logfile = %[1]s/supervisord.log
pidfile = %[1]s/supervisord.pid
childlogdir = %[1]s
minfds = %[4]d
[unix_http_server]
file = %[1]s/%[2]s
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://%[1]s/%[2]s
[program:idle]
command = %[5]s
numprocs = %[3]d
process_name = %%(program_name)s_%%(process_num)d
startsecs = 0
autorestart = true
stdout_logfile = %[6]s
stderr_logfile = NONE
`, s.dir, supervisordSocket, s.load.n, max(1024, fdsOfProgram*s.load.n+fdsOfSelf), strings.Join(s.argv(), " "), stdout)
}

// environ is what all supervisors get, so that a run does not depend on the
// environment it is started from.
func environ() []string { return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"} }

// dial makes a client that speaks HTTP over a Unix socket.
func dial(path string) *http.Client {
	var d net.Dialer
	return &http.Client{Transport: &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
		IdleConnTimeout: time.Minute,
	}}
}

// exchange sends a request and returns the body of its answer.
func exchange(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, bytes.TrimSpace(body))
	}
	return body, nil
}

// get asks pm for a document.
func (s *session) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://pm/v1/"+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return exchange(s.client, req)
}

// post has pm do something, and reads the answer into out unless that is nil.
func (s *session) post(ctx context.Context, path, body string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://pm/v1/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := exchange(s.client, req)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// call calls a method of supervisord without parameters, as supervisorctl does
// it, and returns the XML that answers.
func (s *session) call(ctx context.Context, method string) ([]byte, error) {
	body := "<?xml version='1.0'?><methodCall><methodName>" + method + "</methodName><params></params></methodCall>"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://supervisor/RPC2", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/xml")
	answer, err := exchange(s.client, req)
	if err == nil && bytes.Contains(answer, []byte("<fault>")) {
		return nil, fmt.Errorf("supervisord answers %s with a fault: %s", method, answer)
	}
	return answer, err
}
