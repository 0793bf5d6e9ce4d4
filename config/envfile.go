package config

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxEnvLine bounds a line of an environment file, and maxEnvLines their
// number.
const (
	maxEnvLine  = 64 << 10
	maxEnvLines = 100_000
)

// ParseEnvFile reads lines of NAME=value and returns them in order, as the
// environment of a process has them. Empty lines and lines that begin with #
// are passed over; "export" may stand before a name. A value in single quotes
// is taken as it is; in double quotes \n, \r, \t, \", \\ and \$ are escapes;
// without quotes it ends before a # that follows a space. Nothing is expanded.
// Faults are returned together as one *Errors; values are never shown in them.
func ParseEnvFile(r io.Reader, name string) ([]string, error) {
	var env []string
	var problems []Problem
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEnvLine)
	number := 0
	for lines.Scan() {
		if number++; number > maxEnvLines {
			return nil, fmt.Errorf("cannot read environment file %q: more than %d lines", name, maxEnvLines)
		}
		pair, problem := parseEnvLine(lines.Text())
		if problem.Message != "" {
			problem.File, problem.Line = name, number
			problems = append(problems, problem)
		}
		if pair != "" {
			env = append(env, pair)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		problems = append(problems, Problem{File: name, Line: number + 1, Column: 1, Message: fmt.Sprintf("line longer than %d KiB", maxEnvLine>>10)})
	} else if err != nil {
		return nil, fmt.Errorf("cannot read environment file %q: %w", name, err)
	}
	if len(problems) > 0 {
		return nil, &Errors{problems}
	}
	return env, nil
}

// parseEnvLine reads one line: a pair, a problem, or neither.
func parseEnvLine(line string) (string, Problem) {
	text := strings.TrimSpace(line)
	if text == "" || text[0] == '#' {
		return "", Problem{}
	}
	if rest, ok := strings.CutPrefix(text, "export"); ok && rest != "" && strings.ContainsAny(rest[:1], " \t") {
		text = strings.TrimSpace(rest)
	}
	name, value, ok := strings.Cut(text, "=")
	name = strings.TrimRight(name, " \t")
	if !ok {
		return "", Problem{Column: 1, Message: "no = in the line", Accepted: "NAME=value"}
	}
	if !isVariable(name) {
		return "", Problem{Column: 1, Value: name, Message: "not a name for a variable", Accepted: "letters, digits and _, not beginning with a digit"}
	}
	value, err := envValue(strings.TrimLeft(value, " \t"))
	if err != nil {
		return "", Problem{Column: strings.Index(line, "=") + 2, Key: name, Message: err.Error()}
	}
	return name + "=" + value, Problem{}
}

// envValue reads what stands behind the =.
func envValue(text string) (string, error) {
	if strings.ContainsRune(text, 0) {
		return "", errors.New("holds a NUL byte")
	}
	if text == "" || text[0] != '"' && text[0] != '\'' {
		return unquotedValue(text), nil
	}
	value, rest, ok := quotedValue(text)
	if !ok {
		return "", fmt.Errorf("a quote (%c) is not closed on its line", text[0])
	}
	rest = strings.TrimSpace(rest)
	if rest != "" && rest[0] != '#' {
		return "", errors.New("something follows the closing quote")
	}
	return value, nil
}

func unquotedValue(text string) string {
	for i := range len(text) {
		if text[i] == '#' && (i == 0 || text[i-1] == ' ' || text[i-1] == '\t') {
			return strings.TrimRight(text[:i], " \t")
		}
	}
	return text
}

// quotedValue reads a text that begins with a quote up to the closing one.
func quotedValue(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		c := text[i]
		if c == text[0] {
			return b.String(), text[i+1:], true
		}
		if c == '\\' && text[0] == '"' && i+1 < len(text) {
			i++
			b.WriteString(envEscape(text[i]))
			continue
		}
		b.WriteByte(c)
	}
	return "", "", false
}

func envEscape(c byte) string {
	switch c {
	case 'n':
		return "\n"
	case 'r':
		return "\r"
	case 't':
		return "\t"
	case '"', '\\', '$':
		return string(c)
	}
	return `\` + string(c)
}
