package config

import (
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep values may nest.
const maxDepth = 32

// spot is where a key and its value stand in a TOML text, as byte offsets.
type spot struct {
	key, value int
	// raw is how a value that is not a string, list or table is written.
	raw    string
	given  bool // a value, or a header of its own
	name   string
	kids   map[string]*spot
	items  []*spot
	parent *spot
}

// kid returns the spot of a key, making it when it is new.
func (s *spot) kid(key string, at int) *spot {
	if k, ok := s.kids[key]; ok {
		return k
	}
	if s.kids == nil {
		s.kids = map[string]*spot{}
	}
	k := &spot{key: at, value: at, name: key, parent: s}
	s.kids[key] = k
	return k
}

// path is the dotted name of the spot.
func (s *spot) path() string {
	if s.parent == nil {
		return s.name
	}
	if s.name == "" { // an item of a list
		return s.parent.path()
	}
	return join(s.parent.path(), s.name)
}

// last is the spot that a header's part stands for: of an array of tables,
// the table that was opened last.
func (s *spot) last() *spot {
	if len(s.items) > 0 {
		return s.items[len(s.items)-1]
	}
	return s
}

// twice is a key or table that is given a second time: the text from start to
// end has to go for the rest to be read.
type twice struct {
	name               string
	first, start, stop int
}

// tomlScan finds the places of keys and values in a TOML text. The library
// that reads the text does not tell them. A text that the library refuses
// gives some places or none, but always ends.
type tomlScan struct {
	src     string
	at      int
	depth   int
	tooDeep bool
	doubles []twice
}

// scanTOML returns the tree of places of src.
func scanTOML(src string) (*spot, *tomlScan) {
	s := &tomlScan{src: src}
	root := &spot{}
	table := root
	open := -1 // index in doubles of a table that stands here a second time
	for {
		s.skip(" \t\r\n", true)
		if s.at >= len(s.src) {
			break
		}
		start := s.at
		if s.src[s.at] == '[' {
			s.closeDouble(&open, start)
			table = s.header(root, &open)
		} else {
			s.pair(table, open < 0)
		}
		s.skipLine()
	}
	s.closeDouble(&open, len(s.src))
	return root, s
}

func (s *tomlScan) closeDouble(open *int, stop int) {
	if *open >= 0 {
		s.doubles[*open].stop = stop
		*open = -1
	}
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (s *tomlScan) header(root *spot, open *int) *spot {
	start := s.at
	array := strings.HasPrefix(s.src[s.at:], "[[")
	s.at++
	if array {
		s.at++
	}
	table := root
	names, places := s.keyParts()
	if len(names) == 0 || s.tooLong(names) {
		return &spot{}
	}
	for i, name := range names[:len(names)-1] {
		table = table.kid(name, places[i]).last()
	}
	name, place := names[len(names)-1], places[len(names)-1]
	table = table.kid(name, place)
	if array {
		item := &spot{key: place, value: start, given: true, parent: table}
		table.items = append(table.items, item)
		return item
	}
	if table.given && len(table.items) == 0 {
		*open = len(s.doubles)
		s.doubles = append(s.doubles, twice{name: table.path(), first: table.key, start: start})
		return &spot{}
	}
	table.key, table.value, table.given = place, start, true
	return table
}

// pair reads one key = value into table.
func (s *tomlScan) pair(table *spot, noteDoubles bool) {
	start := s.at
	names, places := s.keyParts()
	if len(names) == 0 || s.tooLong(names) || !s.take('=') {
		return
	}
	leaf := table
	for i, name := range names {
		leaf = leaf.kid(name, places[i])
	}
	first, path, double := leaf.key, "", leaf.given
	if double {
		path = leaf.path()
		leaf = &spot{}
	}
	leaf.key, leaf.given = places[len(places)-1], true
	s.skip(" \t", false)
	s.value(leaf)
	if double && noteDoubles {
		s.doubles = append(s.doubles, twice{path, first, start, s.at})
	}
}

// value reads one value into leaf.
func (s *tomlScan) value(leaf *spot) {
	leaf.value = s.at
	if s.at >= len(s.src) {
		return
	}
	switch s.src[s.at] {
	case '"', '\'':
		s.quoted()
	case '[':
		s.nested(func() { s.array(leaf) })
	case '{':
		s.nested(func() { s.inline(leaf) })
	default:
		start := s.at
		for s.at < len(s.src) && !strings.ContainsRune(",]}#\n", rune(s.src[s.at])) {
			s.at++
		}
		leaf.raw = strings.TrimSpace(s.src[start:s.at])
	}
}

// nested reads a list or an inline table, unless it lies too deep.
func (s *tomlScan) nested(read func()) {
	if s.depth >= maxDepth {
		s.tooDeep = true
		s.at = len(s.src)
		return
	}
	s.depth++
	s.at++
	read()
	s.depth--
}

func (s *tomlScan) array(leaf *spot) {
	for {
		s.skip(" \t\r\n,", true)
		if s.at >= len(s.src) || s.take(']') {
			return
		}
		before := s.at
		item := &spot{key: s.at, given: true, parent: leaf}
		leaf.items = append(leaf.items, item)
		s.value(item)
		if s.at == before {
			s.at++
		}
	}
}

func (s *tomlScan) inline(leaf *spot) {
	for {
		s.skip(" \t\r\n,", true)
		if s.at >= len(s.src) || s.take('}') {
			return
		}
		before := s.at
		s.pair(leaf, false)
		if s.at == before {
			s.at++
		}
	}
}

// keyParts reads a dotted key: its names and where each stands.
func (s *tomlScan) keyParts() (names []string, places []int) {
	for {
		s.skip(" \t", false)
		start := s.at
		name, ok := s.name()
		if !ok {
			return names, places
		}
		names, places = append(names, name), append(places, start)
		if !s.take('.') {
			return names, places
		}
	}
}

// tooLong reports whether a dotted key nests too deep, which ends the scan.
func (s *tomlScan) tooLong(names []string) bool {
	if len(names) <= maxDepth {
		return false
	}
	s.tooDeep = true
	s.at = len(s.src)
	return true
}

// name reads one bare or quoted name of a key.
func (s *tomlScan) name() (string, bool) {
	if s.at < len(s.src) && (s.src[s.at] == '"' || s.src[s.at] == '\'') {
		return s.quoted(), true
	}
	start := s.at
	for s.at < len(s.src) && isBare(s.src[s.at]) {
		s.at++
	}
	return s.src[start:s.at], s.at > start
}

func isBare(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

// quoted passes over a string of any of the four kinds and returns its value,
// exact for the kinds that a key can be.
func (s *tomlScan) quoted() string {
	quote := s.src[s.at : s.at+1]
	if strings.HasPrefix(s.src[s.at:], strings.Repeat(quote, 3)) {
		return s.multiline(quote)
	}
	start := s.at + 1
	for s.at = start; s.at < len(s.src) && s.src[s.at] != '\n'; s.at++ {
		if s.src[s.at] == '\\' && quote == `"` {
			s.at++
			continue
		}
		if s.src[s.at] == quote[0] {
			text := s.src[start:s.at]
			s.at++
			if quote == `"` {
				text = unescape(text)
			}
			return text
		}
	}
	s.at = min(s.at, len(s.src))
	return ""
}

func (s *tomlScan) multiline(quote string) string {
	end := strings.Repeat(quote, 3)
	for s.at += 3; s.at < len(s.src); s.at++ {
		if s.src[s.at] == '\\' && quote == `"` {
			s.at++
			continue
		}
		if strings.HasPrefix(s.src[s.at:], end) {
			s.at += 3
			for range 2 { // up to two quotes may stand before the closing three
				if strings.HasPrefix(s.src[s.at:], quote) {
					s.at++
				}
			}
			return ""
		}
	}
	s.at = len(s.src)
	return ""
}

// take passes over spaces and then c, if it is there.
func (s *tomlScan) take(c byte) bool {
	s.skip(" \t", false)
	if s.at < len(s.src) && s.src[s.at] == c {
		s.at++
		return true
	}
	return false
}

// skip passes over the given characters, and comments if asked to.
func (s *tomlScan) skip(chars string, comments bool) {
	for s.at < len(s.src) {
		if comments && s.src[s.at] == '#' {
			s.skipLine()
			continue
		}
		if strings.IndexByte(chars, s.src[s.at]) < 0 {
			return
		}
		s.at++
	}
}

func (s *tomlScan) skipLine() {
	end := strings.IndexByte(s.src[s.at:], '\n')
	if end < 0 {
		s.at = len(s.src)
		return
	}
	s.at += end + 1
}

// unescape resolves the escapes of a basic string.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		if digits := strings.IndexByte("..x.u...U", text[i]); digits >= 2 && text[i] != '.' {
			b.WriteRune(hexRune(text[i+1 : min(i+1+digits, len(text))]))
			i += digits
			continue
		}
		if at := strings.IndexByte("btnfre", text[i]); at >= 0 {
			b.WriteByte("\b\t\n\f\r\x1b"[at])
			continue
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

func hexRune(digits string) rune {
	var r rune
	for _, c := range strings.ToLower(digits) {
		at := strings.IndexRune("0123456789abcdef", c)
		if at < 0 {
			return utf8.RuneError
		}
		r = r<<4 | rune(at)
	}
	return r
}
