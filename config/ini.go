package config

import (
	"fmt"
	"strings"
)

// iniSection is one [section] of an INI file.
type iniSection struct {
	pos
	name  string
	lines []iniLine
}

// iniLine is one key of a section, with the lines that continue it.
type iniLine struct {
	pos
	key, value string
}

// get returns the value of a key, and whether it is there.
func (s iniSection) get(key string) (iniLine, bool) {
	for _, l := range s.lines {
		if l.key == key {
			return l, true
		}
	}
	return iniLine{}, false
}

// parseINI reads supervisor's kind of INI: comments with ; or # on a line of
// their own or after a space, and values that go on in indented lines.
func parseINI(file, src string) ([]iniSection, []Problem) {
	var sections []iniSection
	var problems []Problem
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(src, "\uFEFF")) {
		number++
		at := pos{file, number, 1}
		text := strings.TrimSpace(withoutComment(line))
		if text == "" {
			continue
		}
		if name, ok := sectionName(text); ok {
			sections = append(sections, iniSection{pos: at, name: name})
			continue
		}
		if len(sections) == 0 {
			problems = append(problems, Problem{File: file, Line: number, Column: 1, Message: "stands before the first section", Accepted: "[program:NAME]"})
			continue
		}
		section := &sections[len(sections)-1]
		if problem := section.add(at, line, text); problem != "" {
			problems = append(problems, Problem{File: file, Line: number, Column: 1, Message: problem, Accepted: "key = value"})
		}
	}
	return sections, problems
}

func sectionName(text string) (string, bool) {
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		return strings.TrimSpace(text[1 : len(text)-1]), true
	}
	return "", false
}

// add adds a line to the section and returns what is wrong with it.
func (s *iniSection) add(at pos, line, text string) string {
	if (line[0] == ' ' || line[0] == '\t') && len(s.lines) > 0 {
		s.lines[len(s.lines)-1].value += "\n" + text
		return ""
	}
	split := strings.IndexAny(text, "=:")
	if split <= 0 {
		return fmt.Sprintf("%q is neither a section nor a key with a value", text)
	}
	key := strings.ToLower(strings.TrimSpace(text[:split]))
	if first, twice := s.get(key); twice {
		return fmt.Sprintf("duplicate key %q: it stands at %s already", key, first.pos)
	}
	s.lines = append(s.lines, iniLine{at, key, strings.TrimSpace(text[split+1:])})
	return ""
}

func withoutComment(line string) string {
	for i := range len(line) {
		if (line[i] == ';' || line[i] == '#') && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i]
		}
	}
	return line
}
