package subcmd

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"pm.example/socket"
)

// shellDaemon is a daemon of three instances, which tells what it is asked.
type shellDaemon struct {
	socket.Service // what the tests do not ask for
	config         string
	calls          chan string
	silent         chan struct{} // closed: it answers no status
}

func newShellDaemon() *shellDaemon {
	return &shellDaemon{config: "/etc/pm/shop.toml", calls: make(chan string, 100), silent: make(chan struct{})}
}

func (d *shellDaemon) Status(ctx context.Context, selectors []string) (socket.Status, error) {
	select {
	case <-d.silent:
		<-ctx.Done()
		return socket.Status{}, ctx.Err()
	default:
	}
	all := []socket.Instance{
		{Name: "db", Program: "db", Group: "backend", State: "RUNNING", PID: 41, OK: true},
		{Name: "web:0", Program: "web", State: "RUNNING", PID: 42, OK: true},
		{Name: "web:1", Program: "web", State: "FATAL"},
	}
	status := socket.Status{Schema: 1, Daemon: socket.DaemonInfo{PID: 1, Config: d.config}, Instances: []socket.Instance{}}
	for _, i := range all {
		if len(selectors) == 0 || slices.Contains(selectors, i.Name) {
			status.Instances = append(status.Instances, i)
		}
	}
	for _, sel := range selectors {
		if !slices.ContainsFunc(all, func(i socket.Instance) bool { return i.Name == sel }) {
			status.Unknown = append(status.Unknown, sel)
		}
	}
	return status, nil
}

func (d *shellDaemon) act(verb string, code int, req socket.Request) (socket.Result, error) {
	d.calls <- verb + " " + strings.Join(req.Selectors, " ")
	r := socket.Result{Schema: 1}
	for _, sel := range req.Selectors {
		r.Results = append(r.Results, socket.Outcome{Instance: sel, Code: code, Message: verb + " done"})
	}
	return r, nil
}

func (d *shellDaemon) Start(_ context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return d.act("start", socket.CodeStartFailed, req)
}

func (d *shellDaemon) Stop(_ context.Context, _ socket.Peer, req socket.Request) (socket.Result, error) {
	return d.act("stop", socket.CodeDone, req)
}

func (d *shellDaemon) Wait(ctx context.Context, _ socket.WaitRequest) (socket.Result, error) {
	d.calls <- "wait"
	<-ctx.Done()
	d.calls <- "wait ended"
	return socket.Result{}, ctx.Err()
}

func (d *shellDaemon) Events(ctx context.Context, _ socket.EventsRequest, _ func(socket.Event) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func (d *shellDaemon) Shutdown(context.Context, socket.Peer, socket.ShutdownRequest) error {
	d.calls <- "shutdown"
	return &socket.Problem{Message: "not now", Code: socket.CodeFailed}
}

// next returns what the daemon was asked for next.
func (d *shellDaemon) next(t *testing.T) string {
	t.Helper()
	select {
	case call := <-d.calls:
		return call
	case <-time.After(shellPatience):
		t.Fatal("the daemon is asked for nothing")
		return ""
	}
}

const shellPatience = 20 * time.Second

// serve serves d at a socket in a short directory until the test ends.
func (d *shellDaemon) serve(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	listener, err := socket.Listen(path, socket.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { // ended by cancel
		ended <- socket.Serve(ctx, listener, d, socket.ServerOptions{Log: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return path
}

// script runs a script of the shell in this process.
func script(text string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = Main(context.Background(), append([]string{"pm"}, args...), strings.NewReader(text), &out, &err, noEnv)
	return code, out.String(), err.String()
}

func TestShellScript(t *testing.T) {
	path := newShellDaemon().serve(t)
	for _, test := range []struct {
		script string
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", "", 0, "", ""},
		{"# nothing\n\n  ;;\n", "", 0, "", ""},
		{"stop db\n", "", 0, "db: stop done\n", ""},
		{"stop db", "", 0, "db: stop done\n", ""},
		{"stop db; stop 'web:0' # both\r\n", "", 0, "db: stop done\nweb:0: stop done\n", ""},
		{"pm stop db", "", 0, "db: stop done\n", ""},
		{"start web:1\nstop db\n", "", 7, "db: stop done\n", "pm: web:1: start done\n"},
		{"start web:1; status nosuch; pid db", "", 4, "41\n", "pm: web:1: start done\npm: no such program: nosuch\npm: hint: pm status lists them\n"},
		{"start web:1\npid nosuch\n", "-e", 7, "", "pm: web:1: start done\n"},
		{"start web:1; stop db\n", "--stop-on-error", 7, "", "pm: web:1: start done\n"},
		{"stop db\nexit\nstop db\n", "", 0, "db: stop done\n", ""},
		{"start db; quit; stop db\n", "", 7, "", "pm: db: start done\n"},
		{"exit 3\nstop db", "", 2, "db: stop done\n", "pm: exit takes no arguments, got \"3\"\n"},
		{"stop db\nstop 'db\nstop db", "", 2, "db: stop done\ndb: stop done\n", "pm: line 2: a quote ' has no end\n"},
		{"stop db && start db", "-e", 2, "", "pm: line 1: the shell has no &: it only runs commands of pm, with ; between them\npm: hint: quote it if it belongs to a name, or use pm in a shell of the system\n"},
		{"daemon -c x", "", 2, "", "pm: daemon is no command of the shell\npm: hint: leave it with exit, and run: pm daemon\n"},
		{"--socket /x exec true", "", 2, "", "pm: exec is no command of the shell\npm: hint: leave it with exit, and run: pm exec\n"},
		{"pm shell", "", 2, "", "pm: shell is no command of the shell\npm: hint: leave it with exit, and run: pm shell\n"},
		{"nosuch", "", 2, "", "pm: unknown command \"nosuch\"\npm: hint: pm help lists the commands\n"},
		{"stop db # " + strings.Repeat("x", maxScriptLine), "", 2, "", "pm: line 1 is longer than 65536 bytes\n"},
		{"shutdown", "", 1, "", "pm: not now\n"},
		{"config check -", "", 2, "", ""}, // the script is not its stdin
	} {
		args := append([]string{"shell", "--socket", path}, strings.Fields(test.args)...)
		code, stdout, stderr := script(test.script, args...)
		if test.script == "config check -" {
			stderr = ""
		}
		if code != test.code || stdout != test.stdout || stderr != test.stderr {
			t.Errorf("%.60q %s: exit %d, want %d\ngot\n%s%swant\n%s%s", test.script, test.args, code, test.code, stdout, stderr, test.stdout, test.stderr)
		}
	}
}

func TestShellCommandsFromArguments(t *testing.T) {
	path := newShellDaemon().serve(t)
	code, stdout, stderr := script("stop nothing", "--socket", path, "shell", "-c", "stop db; stop web:0\nstart web:1")
	if code != 7 || stdout != "db: stop done\nweb:0: stop done\n" || stderr != "pm: web:1: start done\n" {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := script("stop nothing", "shell", "-c", ""); code != 0 || stdout != "" || stderr != "" {
		t.Errorf("no commands: exit %d\n%s%s", code, stdout, stderr)
	}
}

func TestShellHelp(t *testing.T) {
	code, stdout, stderr := script("help\n", "shell")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "\nstop ") || !strings.Contains(stdout, "exit, quit ") || strings.Contains(stdout, "\ndaemon ") {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
	if _, stdout, _ := script("help tail\n", "shell"); !strings.HasPrefix(stdout, "NAME:\n   pm logs - ") {
		t.Errorf("help tail:\n%s", stdout)
	}
}

// A signal ends a script, also while it waits for its next line.
func TestShellScriptSignals(t *testing.T) {
	d := newShellDaemon()
	cmd := shellCmd(t, d.serve(t), "")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(stdin, "stop db")
	d.next(t)
	_, _ = fmt.Fprintln(stdin, "wait db; stop db")
	d.next(t)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit %d, want 143", code)
	}
	if call := d.next(t); call != "wait ended" || len(d.calls) > 0 {
		t.Errorf("%s, and %d more calls", call, len(d.calls))
	}
}

// TestShellProcess is no test: it is pm, in a process of its own.
func TestShellProcess(t *testing.T) {
	if os.Getenv("PM_TEST_SHELL") == "" {
		return
	}
	args := append([]string{"pm"}, strings.Fields(os.Getenv("PM_TEST_SHELL"))...)
	os.Exit(Main(context.Background(), args, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// shellCmd is pm shell in a process of its own.
func shellCmd(t *testing.T, socketPath, state string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestShellProcess$")
	cmd.Env = []string{
		"PM_TEST_SHELL=shell", "PM_SOCKET=" + socketPath, "XDG_STATE_HOME=" + state, "TERM=xterm",
		"GORACE=atexit_sleep_ms=10", "GOCOVERDIR=" + t.TempDir(),
	}
	return cmd
}

// shellTerminal is a pseudo-terminal with pm shell in it.
type shellTerminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	file   *os.File
	output chan []byte
	all    []byte // what came
	read   int    // how much of it expect has seen
}

func openTerminal(t *testing.T, columns uint16, cmd *exec.Cmd) *shellTerminal {
	t.Helper()
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: columns})
	if err != nil {
		t.Fatal(err)
	}
	x := &shellTerminal{t: t, cmd: cmd, file: file, output: make(chan []byte, 1000)}
	go func() { // ends with the process, or when the file is closed
		defer close(x.output)
		for {
			chunk := make([]byte, 4096)
			n, err := file.Read(chunk)
			if n > 0 {
				x.output <- chunk[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = file.Close()
	})
	return x
}

func (x *shellTerminal) write(keys string) {
	x.t.Helper()
	if _, err := x.file.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// escapes are what moves a cursor.
var escapes = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// expect reads until a text has come after what was expected before.
func (x *shellTerminal) expect(text string) {
	x.t.Helper()
	deadline := time.After(shellPatience)
	for {
		fresh := x.all[x.read:]
		if i := bytes.Index(fresh, []byte(text)); i >= 0 {
			x.read += i + len(text)
			return
		}
		select {
		case chunk, ok := <-x.output:
			if !ok {
				x.t.Fatalf("ended without %q; the last that came is %q", text, fresh)
			}
			x.all = append(x.all, chunk...)
		case <-deadline:
			x.t.Fatalf("waited in vain for %q; the last that came is %q", text, fresh)
		}
	}
}

// ends reads the rest and returns the exit code.
func (x *shellTerminal) ends() int {
	x.t.Helper()
	deadline := time.After(shellPatience)
	for {
		select {
		case chunk, ok := <-x.output:
			if ok {
				x.all = append(x.all, chunk...)
				continue
			}
			_ = x.cmd.Wait()
			return x.cmd.ProcessState.ExitCode()
		case <-deadline:
			x.t.Fatalf("it does not end; the last that came is %q", x.all[x.read:])
		}
	}
}

func TestShellOnATerminal(t *testing.T) {
	d := newShellDaemon()
	x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
	x.expect("pm:shop.toml> ")
	x.write("\r")
	x.expect("pm:shop.toml> ")
	x.write("stop db; nosuch\r")
	x.expect("db: stop done\r\n")
	x.expect(`pm: unknown command "nosuch"`)
	x.expect("pm:shop.toml> ")
	if call := d.next(t); call != "stop db" {
		t.Error(call)
	}
	x.write("exit\r")
	if code := x.ends(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

func TestShellEditing(t *testing.T) {
	for _, test := range []struct{ name, keys, want string }{
		{"left and insert", "stop b\x1b[Dd", "stop db"},
		{"home and end", "op db\x01st\x05x", "stop dbx"},
		{"backspace", "stop dbx\x7f", "stop db"},
		{"delete", "stop xdb\x1b[D\x1b[D\x1b[D\x1b[3~", "stop db"},
		{"word left, delete word", "stop db web\x17\x7f", "stop db"},
		{"kill and yank", "db\x15stop \x19", "stop db"},
		{"kill to the end", "stop db web\x02\x02\x02\x02\x0b", "stop db"},
		{"letters of two bytes", "stop äü\x7f\x7fdb", "stop db"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newShellDaemon()
			x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
			x.expect("> ")
			x.write(test.keys + "\r")
			if call := d.next(t); call != test.want {
				t.Errorf("got %q, want %q", call, test.want)
			}
			x.expect("done")
			x.expect("> ")
			x.write("\x04") // Ctrl-D
			if code := x.ends(); code != 0 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

func TestShellHistory(t *testing.T) {
	d, state := newShellDaemon(), t.TempDir()
	path := d.serve(t)
	x := openTerminal(t, 80, shellCmd(t, path, state))
	for _, name := range []string{"db", "web:0"} {
		x.expect("> ")
		x.write("stop " + name + "\r")
		d.next(t)
	}
	x.expect("done")
	x.expect("> ")
	x.write("quit\r")
	x.ends()
	file := filepath.Join(state, "pm", "history")
	text, err := os.ReadFile(file)
	if err != nil || string(text) != "stop db\nstop web:0\nquit\n" {
		t.Errorf("the history is %q, %v", text, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	x = openTerminal(t, 80, shellCmd(t, path, state))
	x.expect("> ")
	x.write("\x1b[A\x1b[A\x1b[A\r") // quit, stop web:0, stop db
	if call := d.next(t); call != "stop db" {
		t.Errorf("third line up: %s", call)
	}
	x.expect("done")
	x.expect("> ")
	x.write("\x12web\r") // Ctrl-R
	if call := d.next(t); call != "stop web:0" {
		t.Errorf("found: %s", call)
	}
	x.expect("done")
	x.expect("> ")
	x.write("\x04")
	x.ends()
}

func TestShellTab(t *testing.T) {
	d := newShellDaemon()
	x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
	x.expect("> ")
	x.write("sto\tw\t:1\t")
	x.expect("stop web:1 ")
	x.write("gr\t\r")
	if call := d.next(t); call != "stop web:1 group:backend" {
		t.Errorf("got %s", call)
	}
	x.expect("group:backend: stop done")
	x.expect("> ")
	from := x.read
	x.write("stop \t\t")
	x.expect("web:1")
	for _, name := range []string{"all ", "db ", "group:backend ", "web ", "web:0 "} {
		if !strings.Contains(string(x.all[from:x.read]), name) {
			t.Errorf("%s is not proposed: %q", name, x.all[from:x.read])
		}
	}
	x.write("\x03")
	x.expect("^C")
	x.expect("> ")
	x.write("exit\r")
	x.ends()
}

func TestShellCtrlC(t *testing.T) {
	d := newShellDaemon()
	x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
	x.expect("> ")
	x.write("stop all")
	x.expect("stop all")
	x.write("\x03") // clears the line
	x.expect("^C")
	x.expect("pm:shop.toml> ")
	for range 2 {
		x.write("wait db\r")
		if call := d.next(t); call != "wait" {
			t.Fatal(call)
		}
		x.write("\x03") // ends the command
		x.expect("pm: interrupted\r\n")
		if call := d.next(t); call != "wait ended" {
			t.Fatal(call)
		}
		x.expect("pm:shop.toml> ")
	}
	x.write("status -w\r")
	x.expect("web:1")
	x.write("\x03")
	x.expect("pm: interrupted\r\n")
	x.expect("pm:shop.toml> ")
	x.write("\x04")
	if code := x.ends(); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// What ends the shell from outside finds the terminal as it was before.
func TestShellIsTerminated(t *testing.T) {
	for name, line := range map[string]string{"at the prompt": "", "in a command": "wait db\r"} {
		t.Run(name, func(t *testing.T) {
			d := newShellDaemon()
			x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
			x.expect("> ")
			x.write(line)
			if line != "" {
				d.next(t)
			}
			if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := x.ends(); code != 143 {
				t.Errorf("exit %d", code)
			}
		})
	}
}

func TestShellAsksBeforeShutdown(t *testing.T) {
	d := newShellDaemon()
	x := openTerminal(t, 80, shellCmd(t, d.serve(t), t.TempDir()))
	for _, answer := range []string{"", "n\r", "y\x03", "yo\r"} {
		x.expect("> ")
		x.write("daemon_exit\r")
		x.expect("stop all programs and end the daemon? [y/N] ")
		x.write(answer[:min(len(answer), 1)])
		x.expect(answer[:min(len(answer), 1)]) // the editor is there
		x.write(cmp.Or(answer[min(len(answer), 1):], "\r"))
		x.expect("nothing is done")
	}
	x.expect("> ")
	x.write("shutdown --help\r")
	x.expect("pm shutdown - ")
	x.expect("> ")
	if len(d.calls) > 0 {
		t.Error(d.next(t))
	}
	x.write("shutdown\r")
	x.expect("[y/N] ")
	x.write("y\r")
	if call := d.next(t); call != "shutdown" {
		t.Error(call)
	}
	x.expect("not now")
	x.expect("> ")
}

func TestShellPromptTellsWhatIsWrong(t *testing.T) {
	d := newShellDaemon()
	path := d.serve(t)
	x := openTerminal(t, 80, shellCmd(t, filepath.Join(filepath.Dir(path), "other"), t.TempDir()))
	x.expect("pm:other (down)> ")
	x.write("stop \t\tweb:0\r") // nothing to complete with
	x.expect("pm: cannot reach the daemon at ")
	x.expect("pm:other (down)> ")
	x.write("\x04")
	x.ends()

	x = openTerminal(t, 80, shellCmd(t, path, t.TempDir()))
	x.expect("pm:shop.toml> ")
	close(d.silent)
	x.write("\r")
	x.expect("pm:shop.toml (slow)> ")
	x.write("\x04")
	x.ends()
}

// shellScreen is what a terminal of some columns shows, as far as the editor uses it.
type shellScreen struct {
	columns int
	rows    [][]rune
	column  int
	wrapped bool
}

func (s *shellScreen) show(text string) {
	for text != "" {
		if m := escapes.FindString(text); m != "" && strings.HasPrefix(text, m) {
			s.escape(m)
			text = text[len(m):]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		switch r {
		case '\r':
			s.column = 0
		case '\n':
			s.rows = append(s.rows, nil)
		default:
			s.put(r)
		}
	}
}

func (s *shellScreen) escape(sequence string) {
	n, _ := strconv.Atoi(sequence[2 : len(sequence)-1])
	switch sequence[len(sequence)-1] {
	case 'G':
		s.column = n - 1
	case 'C':
		s.column += n
	case 'K':
		if row := s.rows[len(s.rows)-1]; len(row) > s.column {
			s.rows[len(s.rows)-1] = row[:s.column]
		}
	}
}

func (s *shellScreen) put(r rune) {
	if s.column >= s.columns {
		s.wrapped = true
		return
	}
	row := &s.rows[len(s.rows)-1]
	for len(*row) <= s.column {
		*row = append(*row, ' ')
	}
	(*row)[s.column] = r
	s.column++
}

// In a narrow terminal a long line scrolls, tables are cut, and a long name of
// the daemon leaves room to type.
func TestShellNarrow(t *testing.T) {
	d := newShellDaemon()
	d.config = "/etc/pm/a-very-long-name-of-a-config.toml"
	x := openTerminal(t, 30, shellCmd(t, d.serve(t), t.TempDir()))
	x.expect("pm:a-very-lo…> ")
	x.write("status\r")
	x.expect("web:1")
	x.expect("pm:a-very-lo…> ")
	x.write("stop aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\x01\x05") // to its beginning and end
	x.write("\r")
	if call := d.next(t); call != "stop aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab" {
		t.Errorf("got %s", call)
	}
	x.expect("\r\n")
	s := shellScreen{columns: 30, rows: [][]rune{nil}}
	s.show(string(x.all[:x.read]))
	row := strings.TrimRight(string(s.rows[len(s.rows)-2]), " ")
	if s.wrapped || !strings.HasPrefix(row, "pm:a-very-lo…> {") || !strings.HasSuffix(row, "ab") {
		t.Errorf("wrapped: %v; the screen shows\n%s", s.wrapped, row)
	}
}

// Where no line editor works, the kernel's does.
func TestShellDumbTerminal(t *testing.T) {
	d := newShellDaemon()
	cmd := shellCmd(t, d.serve(t), t.TempDir())
	cmd.Env = append(cmd.Env, "TERM=dumb")
	x := openTerminal(t, 80, cmd)
	x.expect("pm:shop.toml> ")
	x.write("stop all\x03")
	x.expect("\n")
	x.expect("pm:shop.toml> ")
	x.write("stop db\n")
	if call := d.next(t); call != "stop db" {
		t.Errorf("got %s", call)
	}
	x.expect("done")
	x.expect("> ")
	x.write("\x04")
	if code := x.ends(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
