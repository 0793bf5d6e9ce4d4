package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	"github.com/creack/pty"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// typist is a person before a terminal in which a program runs.
type typist struct {
	screen *os.File // the other end of the program's terminal

	mu    sync.Mutex // guards all below
	text  []byte     // all that the program has printed
	seen  int        // how much of it was looked at
	ended bool       // the terminal is closed: nobody has it any more
}

// cmdConverse runs a program on a terminal and plays a dialogue with it.
func cmdConverse(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "converse DIALOGUE CMD ARG…")
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir, cmd.Env = ts.MkAbs("."), append(environment(ts), "TERM=dumb", `PS1=\n`)
	screen, err := startOnTerminal(cmd)
	ts.Check(err)
	p := &typist{screen: screen}
	go p.read() // ends when nobody has the terminal any more
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // ends with the program
	ts.Defer(func() { _ = cmd.Process.Kill(); <-ended; _ = screen.Close() })
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.HasPrefix(line, "#") {
			p.play(ts, line)
		}
	}
	poll(ts, "the end of "+args[1], func() (bool, string) { return p.done(), p.rest() })
}

// startOnTerminal starts a program on a terminal, and returns the other end of
// it: one whose Close does not wait for a Read.
func startOnTerminal(cmd *exec.Cmd) (*os.File, error) {
	blocking, err := pty.Start(cmd)
	if err != nil {
		return nil, err
	}
	defer func() { _ = blocking.Close() }()
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	return os.NewFile(uintptr(fd), "terminal"), err
}

// environment is that of the script, as far as programs need it.
func environment(ts *testscript.TestScript) (list []string) {
	for _, key := range []string{
		"PATH", "HOME", "TMPDIR", "TZ", "WORK", "ROOT", "GOCOVERDIR", "GORACE", "PM_SOCKET", "PM_STATE_DIR", "PM_SCRIPT",
	} {
		if value := ts.Getenv(key); value != "" {
			list = append(list, key+"="+value)
		}
	}
	return list
}

// play does one line of the dialogue.
func (p *typist) play(ts *testscript.TestScript, line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "type":
		p.send(ts, rest+"\n")
	case "press":
		p.send(ts, string(rest[0]&0x1f)) // the Ctrl key clears the upper bits
	case "see":
		re, err := regexp.Compile("(?m)" + rest)
		ts.Check(err)
		poll(ts, line, func() (bool, string) { return p.see(re), p.rest() })
	case "hang-up":
		ts.Check(p.screen.Close())
	default:
		ts.Fatalf("%q is not: type TEXT, press KEY, see RE or hang-up", line)
	}
}

func (p *typist) send(ts *testscript.TestScript, text string) {
	_, err := p.screen.WriteString(text)
	ts.Check(err)
}

// read collects what the program prints.
func (p *typist) read() {
	buf := make([]byte, 4096)
	for {
		n, err := p.screen.Read(buf)
		p.mu.Lock()
		p.text = append(p.text, strings.ReplaceAll(string(buf[:n]), "\r", "")...)
		if err != nil {
			p.ended = true
		}
		p.mu.Unlock()
		if err != nil { // EIO when the last descriptor of the other side is closed
			return
		}
	}
}

// see looks for what was printed since it last saw something.
func (p *typist) see(re *regexp.Regexp) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := re.FindIndex(p.text[p.seen:])
	if found == nil {
		return false
	}
	p.seen += found[1]
	return true
}

func (p *typist) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// rest is what was printed and not looked for.
func (p *typist) rest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%q", p.text[p.seen:])
}
