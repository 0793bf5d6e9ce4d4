package subcmd

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"pm.example/proc"
	"pm.example/socket"
)

// names are what selectors can be made of.
type names struct {
	instances, programs, groups []string
}

// namesOf collects the names of a status. Those that a terminal cannot show are
// left out.
func namesOf(status socket.Status) names {
	var n names
	for _, i := range status.Instances {
		for list, name := range map[*[]string]string{&n.instances: i.Name, &n.programs: i.Program, &n.groups: i.Group} {
			if name != "" && utf8.ValidString(name) && printable(name) == name {
				*list = append(*list, name)
			}
		}
	}
	for _, list := range []*[]string{&n.instances, &n.programs, &n.groups} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return n
}

// selectors are the ways to name some of them.
func (n names) selectors() []string {
	list := slices.Concat(n.instances, n.programs)
	for _, group := range n.groups {
		list = append(list, "group:"+group)
	}
	return append(list, "all")
}

const (
	// namesPatience is how long a daemon may take to answer what nobody has asked
	// for in so many words.
	namesPatience = 300 * time.Millisecond
	namesAge      = time.Second
)

// nameCache asks the daemon for names, and again once they are old. A daemon
// that does not answer at once has none.
type nameCache struct {
	ask func(context.Context) (socket.Status, error)

	mu    sync.Mutex // guards what follows
	names names
	asked time.Time
}

func (c *nameCache) get(ctx context.Context) names {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked.IsZero() && time.Since(c.asked) < namesAge {
		return c.names
	}
	ctx, cancel := context.WithTimeout(ctx, namesPatience)
	defer cancel()
	c.names = names{}
	if status, err := c.ask(ctx); err == nil {
		c.names = namesOf(status)
	}
	c.asked = time.Now()
	return c.names
}

// completer proposes how a command line may go on.
type completer struct {
	app   *cli.App
	words []string            // commands beside those of app
	bars  func(string) bool   // commands of app that are not to be proposed
	names func() names        // what the daemon has; called only when needed
	flags map[string][]string // values that flags take, by the flag's first name
}

// flagValues are what flags accept, where that can be listed.
func flagValues() map[string][]string {
	return map[string][]string{
		"for":    {"running", "healthy", "stopped"},
		"output": {"table", "wide", "plain", "json"},
		"signal": signalNames(),
	}
}

// signalNames lists the signals that have a name.
func signalNames() (list []string) {
	for n := 1; n <= 64; n++ {
		name := proc.SignalName(syscall.Signal(n))
		if _, err := strconv.Atoi(name); err != nil {
			list = append(list, name)
		}
	}
	return list
}

// line completes a line of the shell whose cursor is at rune pos. It returns
// what stays before and behind, and what may stand between.
func (c *completer) line(text string, pos int) (head string, proposals []string, tail string) {
	runes := []rune(text)
	pos = min(pos, len(runes))
	before, tail := string(runes[:pos]), string(runes[pos:])
	var s shellScan
	err := s.scan(before)
	open := s.inWord && len(before) > s.start
	if s.comment || err != nil && !open || operator(err) {
		return before, nil, tail
	}
	start := len(before)
	if s.inWord {
		start = s.start
	}
	for _, word := range c.propose(s.words, s.word.String()) {
		word = quoteWord(word)
		if !strings.HasPrefix(tail, " ") {
			word += " "
		}
		proposals = append(proposals, word)
	}
	return before[:start], proposals, tail
}

// operator reports whether a line has what no quote can have left open.
func operator(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "the shell has no ")
}

// propose returns the words that begin with partial and may follow the words
// before it, in order.
func (c *completer) propose(words []string, partial string) []string {
	var fitting []string
	for _, word := range c.candidates(words, partial) {
		if strings.HasPrefix(word, partial) {
			fitting = append(fitting, word)
		}
	}
	slices.Sort(fitting)
	return slices.Compact(fitting)
}

func (c *completer) candidates(words []string, partial string) []string {
	if len(words) > 0 && words[0] == "pm" {
		words = words[1:]
	}
	at := c.place(words)
	flag, _, valued := strings.Cut(partial, "=")
	switch {
	case at.flag != "":
		return c.flags[at.flag]
	case at.plain || !strings.HasPrefix(partial, "-"):
		return c.arguments(at)
	case valued:
		var list []string
		for _, value := range c.flags[canonicalFlag(at.flags, flag)] {
			list = append(list, flag+"="+value)
		}
		return list
	}
	return flagWords(at.flags)
}

// place is where in a command line a word stands.
type place struct {
	command  *cli.Command   // nil: before one
	commands []*cli.Command // that may follow
	flags    []cli.Flag
	flag     string // the flag whose value the word is
	position int    // arguments before it
	plain    bool   // behind --
}

// place finds where the word after these words stands.
func (c *completer) place(words []string) place {
	at := place{commands: c.app.Commands, flags: c.app.Flags}
	for _, word := range words {
		switch {
		case at.flag != "":
			at.flag = ""
		case at.plain:
			at.position++
		case word == "--":
			at.plain = true
		case strings.HasPrefix(word, "-") && word != "-":
			if takesValue(at.flags, word) {
				at.flag = canonicalFlag(at.flags, word)
			}
		default:
			at = at.enter(word)
		}
	}
	return at
}

// enter moves behind a word that is no flag: a command, or an argument.
func (at place) enter(word string) place {
	command := find(at.commands, word)
	if command == nil {
		at.position++
		return at
	}
	return place{command: command, commands: command.Subcommands, flags: append(slices.Clone(command.Flags), cli.HelpFlag)}
}

// canonicalFlag returns the first name of the flag that is written so.
func canonicalFlag(flags []cli.Flag, word string) string {
	name := strings.TrimLeft(word, "-")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f.Names()[0]
		}
	}
	return name
}

// flagWords writes flags as they are typed, in their long form.
func flagWords(flags []cli.Flag) (list []string) {
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		list = append(list, dashed(f.Names()[0]))
	}
	return list
}

// arguments are what can stand at a place that is no flag's.
func (c *completer) arguments(at place) []string {
	switch {
	case at.command == nil && at.position > 0:
		return nil
	case at.command == nil:
		return append(c.commandNames(at.commands), c.words...)
	case len(at.commands) > 0 && at.position == 0:
		return c.commandNames(at.commands)
	}
	kind := argument(at.command.ArgsUsage, at.position)
	switch kind {
	case "SELECTOR":
		return c.names().selectors()
	case "NAME":
		return c.names().programs
	case "SIGNAL":
		return signalNames()
	case "COMMAND":
		return append(c.commandNames(c.app.Commands), c.words...)
	}
	if strings.Contains(kind, "|") {
		return strings.Split(kind, "|")
	}
	return nil
}

func (c *completer) commandNames(commands []*cli.Command) (list []string) {
	for _, command := range commands {
		if !command.Hidden && !c.bars(command.Name) {
			list = append(list, command.Name)
		}
	}
	return list
}

var argumentWord = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^\[\] ]+`) })

// argument returns what a command's usage says of its argument number n: of
// SIGNAL SELECTOR… the first is SIGNAL, and all others are SELECTOR.
func argument(usage string, n int) string {
	for i, word := range argumentKinds(usage) {
		word, repeated := strings.CutSuffix(word, "…")
		if i == n || repeated && i < n {
			return word
		}
	}
	return ""
}
