package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/peterh/liner"

	"pm.example/socket"
)

// prompt reads lines from the terminal. While none is read the terminal is as
// it was found: a command may be typed at, and Ctrl-C is a signal.
type prompt struct {
	editor *liner.State
	out    io.Writer
	found  liner.ModeApplier
	edit   liner.ModeApplier
	text   string // what is shown before the line
	plain  bool   // the kernel edits the line, not the editor
}

func newPrompt(out io.Writer) (*prompt, error) {
	found, err := liner.TerminalMode()
	if err != nil {
		return nil, fmt.Errorf("cannot read the mode of the terminal: %w", err)
	}
	p := &prompt{editor: liner.NewLiner(), out: out, found: found}
	p.editor.SetCtrlCAborts(true)
	p.editor.SetTabCompletionStyle(liner.TabPrints)
	p.editor.SetBeep(false)
	if p.edit, err = liner.TerminalMode(); err == nil {
		err = found.ApplyMode()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot set the mode of the terminal: %w", err), p.editor.Close())
	}
	return p, nil
}

// close leaves the terminal as it was found, also while a line is being read.
func (p *prompt) close() { _ = p.editor.Close() }

// editorRoom is what the editor wants beside the prompt.
const editorRoom = 10

// reading returns a function that shows text and reads a line.
func (p *prompt) reading(text string) func() (string, error) {
	width := terminalWidth(p.out)
	p.text, p.plain = text, !liner.TerminalSupported() || width < utf8.RuneCountInString(text)+editorRoom
	return func() (string, error) {
		if err := p.edit.ApplyMode(); err != nil {
			return "", err
		}
		line, err := p.editor.Prompt(text)
		return line, errors.Join(err, p.found.ApplyMode())
	}
}

// again shows the prompt after a Ctrl-C that was a signal: the kernel has
// dropped the line, or the editor had not begun.
func (p *prompt) again() {
	if !p.plain {
		_, _ = io.WriteString(p.out, "^C") // else the kernel has shown it
	}
	_, _ = fmt.Fprintf(p.out, "\n%s", p.text)
}

// remember gives the editor the lines of earlier sessions.
func (p *prompt) remember(h history) error {
	lines, err := h.load()
	for _, line := range lines {
		p.editor.AppendHistory(line)
	}
	return err
}

// append gives the editor a line of this session.
func (p *prompt) append(line string) {
	if line != "" {
		p.editor.AppendHistory(line)
	}
}

func (p *prompt) complete(c *completer) { p.editor.SetWordCompleter(c.line) }

// addressee is the daemon that commands go to.
type addressee struct {
	ask  func(context.Context) (socket.Status, error)
	name string // as last known
}

// prompt names the daemon, and tells if it cannot be talked to. In a narrow
// terminal it leaves half of the line free.
func (a *addressee) prompt(ctx context.Context, width int) string {
	ctx, cancel := context.WithTimeout(ctx, namesPatience)
	defer cancel()
	status, err := a.ask(ctx)
	if err == nil && status.Daemon.Config != "" {
		a.name = filepath.Base(status.Daemon.Config)
	}
	mark := condition(err)
	name := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.C, r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, a.name)
	if width > 0 {
		name = cut(name, max(width/2-len("pm:> ")-len(mark), 4))
	}
	return "pm:" + name + mark + "> "
}

// condition tells why a daemon cannot be talked to.
func condition(err error) string {
	var p *socket.Problem
	switch errors.As(err, &p); {
	case err == nil:
		return ""
	case p != nil && p.Code == socket.CodePermission:
		return " (denied)"
	case p != nil && p.Code == socket.CodeTimeout, errors.Is(err, context.DeadlineExceeded):
		return " (slow)"
	}
	return " (down)"
}
