package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// parseTOML reads a TOML text into a tree. The library reads the values, the
// scan finds their places.
func parseTOML(file, src string) (*node, []Problem) {
	src = strings.TrimPrefix(src, "\uFEFF")
	spots, scan := scanTOML(src)
	t := &tomlTree{file: file, src: src, lines: lineStarts(src)}
	if scan.tooDeep {
		return nil, []Problem{{File: file, Message: fmt.Sprintf("values nest more than %d deep", maxDepth)}}
	}
	problems, readable := t.doubles(scan.doubles)
	var values map[string]any
	if _, err := toml.Decode(readable, &values); err != nil {
		return nil, append(problems, t.syntax(err))
	}
	return t.node(values, spots, 0), problems
}

type tomlTree struct {
	file, src string
	lines     []int // the offset at which each line starts
}

// doubles tells of everything given twice, and returns the text without the
// second ones, so that the other faults are found too.
func (t *tomlTree) doubles(doubles []twice) ([]Problem, string) {
	var problems []Problem
	text := []byte(t.src)
	for _, d := range doubles {
		problems = append(problems, duplicate(t.at(d.start), d.name, t.at(d.first)))
		for i := d.start; i < d.stop; i++ {
			if text[i] != '\n' {
				text[i] = ' '
			}
		}
	}
	return problems, string(text)
}

// duplicate is the fault of a key that stands twice.
func duplicate(at pos, key string, first pos) Problem {
	return Problem{
		File: at.file, Line: at.line, Column: at.column,
		Message: fmt.Sprintf("duplicate key %q: it stands at %s already", key, first), Suggestion: "remove one of them",
	}
}

// syntax turns the library's error into a problem with its place.
func (t *tomlTree) syntax(err error) Problem {
	p := Problem{File: t.file, Message: "not valid TOML: " + err.Error()}
	var parse toml.ParseError
	if !errors.As(err, &parse) {
		return p
	}
	at := t.at(min(max(parse.Position.Start, 0), len(t.src)))
	p.Line, p.Column = at.line, at.column
	p.Message = "not valid TOML: " + firstLower(cmp.Or(parse.Message, err.Error()))
	return p
}

func firstLower(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }

// node builds the tree of a value whose place is spot; without one it has the
// place at.
func (t *tomlTree) node(value any, place *spot, at int) *node {
	raw := ""
	if place != nil {
		at, raw = place.value, place.raw
	}
	n := &node{pos: t.at(at)}
	switch v := value.(type) {
	case map[string]any:
		n.kind = tableNode
		n.entries = t.entries(v, place, at)
		return n
	case []map[string]any:
		n.kind = listNode
		for i, item := range v {
			n.items = append(n.items, t.node(item, place.item(i), at))
		}
		return n
	case []any:
		n.kind = listNode
		for i, item := range v {
			n.items = append(n.items, t.node(item, place.item(i), at))
		}
		return n
	case string:
		n.text, n.raw, n.isString = v, v, true
		return n
	case float64:
		n.text = strconv.FormatFloat(v, 'g', -1, 64)
	default:
		n.text = fmt.Sprint(v)
	}
	n.raw = cmp.Or(raw, n.text)
	return n
}

// entries are the keys of a table in the order of the file.
func (t *tomlTree) entries(values map[string]any, place *spot, at int) []entry {
	var entries []entry
	offsets := map[string]int{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		kid := place.find(key)
		offsets[key] = at
		if kid != nil {
			offsets[key] = kid.key
		}
		entries = append(entries, entry{t.at(offsets[key]), key, t.node(values[key], kid, at)})
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return offsets[a.key] - offsets[b.key] })
	return entries
}

func (s *spot) find(key string) *spot {
	if s == nil {
		return nil
	}
	return s.kids[key]
}

func (s *spot) item(i int) *spot {
	if s == nil || i >= len(s.items) {
		return nil
	}
	return s.items[i]
}

// longLine is where columns are counted in bytes: counting the characters of
// a line anew for each of its values takes too long there.
const longLine = 10_000

// at turns an offset into line and column.
func (t *tomlTree) at(offset int) pos {
	line := sort.SearchInts(t.lines, offset+1)
	start := t.lines[line-1]
	if offset-start > longLine {
		return pos{t.file, line, offset - start + 1}
	}
	return pos{t.file, line, utf8.RuneCountInString(t.src[start:offset]) + 1}
}

func lineStarts(src string) []int {
	starts := []int{0}
	for i := range len(src) {
		if src[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
