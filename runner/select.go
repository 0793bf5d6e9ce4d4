package runner

import (
	"fmt"
	"path"
	"strings"
)

// Selector names some of the instances, as a user writes it: `web`, `web:2`,
// `web:*`, a glob such as `web*` or `w[ab]*:1`, `group:NAME`, or `all`.
type Selector struct {
	text  string
	group string // group:NAME
	all   bool
}

const maxSelector = 1024

// ParseSelector reads a selector. A program called `all` or `group` is still
// reached by `all:*` and `group:*`… only `group:NAME` means the group.
func ParseSelector(text string) (Selector, error) {
	switch {
	case text == "":
		return Selector{}, fmt.Errorf("empty selector (accepted: NAME, NAME:2, NAME:*, a glob, group:NAME, all)")
	case len(text) > maxSelector:
		return Selector{}, fmt.Errorf("selector of %d bytes is too long (at most %d)", len(text), maxSelector)
	case text == "all":
		return Selector{text: text, all: true}, nil
	}
	if group, ok := strings.CutPrefix(text, "group:"); ok && group != "" {
		text = group
		if _, err := path.Match(group, ""); err != nil {
			return Selector{}, badGlob(group)
		}
		return Selector{text: text, group: group}, nil
	}
	if _, err := path.Match(text, ""); err != nil {
		return Selector{}, badGlob(text)
	}
	return Selector{text: text}, nil
}

func badGlob(text string) error {
	return fmt.Errorf("selector %q: not a glob (an unclosed [ or a trailing \\)", text)
}

// String returns the selector as it was written.
func (s Selector) String() string {
	if s.group != "" {
		return "group:" + s.text
	}
	return s.text
}

// Match reports whether s names the instance. name is the instance's, program
// and group what it belongs to.
func (s Selector) Match(name, program, group string) bool {
	switch {
	case s.all:
		return true
	case s.group != "":
		return group != "" && globs(s.group, group)
	case s.text == name || s.text == program || s.text == program+":*":
		return true
	}
	return globs(s.text, name) || globs(s.text, program)
}

func globs(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return err == nil && ok
}
