package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// namesAccept is told for names.
const namesAccept = "letters, digits and . _ - + @, beginning with a letter, a digit or _, at most 100; not all"

// validName reports whether name can be that of a program or group.
func validName(name string) bool {
	for i := range len(name) {
		plain := isBare(name[i]) && name[i] != '-'
		if !plain && (i == 0 || !strings.ContainsRune("-.+@", rune(name[i]))) {
			return false
		}
	}
	return name != "" && name != "all" && len(name) <= 100
}

// reader turns nodes into values and collects what is wrong with them.
type reader struct {
	lookup func(string) (string, bool) // nil: references stay as they are
	dir    string                      // where relative paths start; empty: they stay relative
	yaml   bool
	// converting says that references are kept for the new file.
	converting bool
	key        string // of the value being read
	secret     bool   // the value being read is not to be shown
	problems   []Problem
	warnings   []Problem
	places     map[string]pos
	base       Program // the defaults
}

func (r *reader) fault(n *node, message, accepted string) { r.faultHint(n, message, accepted, "") }

func (r *reader) faultHint(n *node, message, accepted, hint string) {
	value := n.short()
	if r.converting && hint == "" && strings.Contains(value, "${") {
		hint = "a conversion cannot look variables up: write the value"
	}
	if r.secret {
		value = ""
	}
	r.problems = append(r.problems, Problem{n.file, n.line, n.column, r.key, value, message, accepted, hint})
}

func (r *reader) faultAt(at pos, message string) {
	r.problems = append(r.problems, Problem{File: at.file, Line: at.line, Column: at.column, Key: r.key, Message: message})
}

func (r *reader) warn(at pos, key, message string) {
	r.warnings = append(r.warnings, Problem{File: at.file, Line: at.line, Column: at.column, Key: key, Message: message})
}

// scalar returns the text of a single value before expansion.
func (r *reader) scalar(n *node) (string, bool) {
	if n.kind != scalarNode {
		r.fault(n, "not a single value but "+n.kind.String(), "")
		return "", false
	}
	if strings.ContainsRune(n.text, 0) {
		r.fault(n, "holds a NUL byte", "")
		return "", false
	}
	return n.text, true
}

// word returns the expanded text of a value of any type.
func (r *reader) word(n *node) (string, bool) {
	text, ok := r.scalar(n)
	if !ok || !n.isString {
		return text, ok
	}
	text, err := expand(text, r.lookup)
	if err != nil {
		r.faultHint(n, err.Error(), "", "set the variable, or write ${NAME:-default}; $$ stands for a $")
		return "", false
	}
	return text, true
}

// quietly is word for a value that is looked at a second time.
func (r *reader) quietly(n *node) (string, bool) {
	if n.kind != scalarNode {
		return "", false
	}
	text, err := expand(n.text, r.lookup)
	return text, err == nil
}

// text returns the expanded text of a string.
func (r *reader) text(n *node) (string, bool) {
	if n.kind == scalarNode && !n.isString {
		r.faultHint(n, "not a string", "a string", fmt.Sprintf("write %q", n.raw))
		return "", false
	}
	return r.word(n)
}

// loose returns the expanded text of a string, or another value as it stands
// in the file.
func (r *reader) loose(n *node) (string, bool) {
	if n.kind == scalarNode && !n.isString {
		return n.raw, true
	}
	return r.word(n)
}

// decodeTable reads the entries of a table into t. base is the path of the
// table, and prefix the part of it that belongs to the keys of fields.
func decodeTable[T any](r *reader, base, prefix string, fields []field[T], t *T, n *node) {
	if n.kind != tableNode {
		r.key = base
		r.fault(n, "not a table but "+n.kind.String(), "")
		return
	}
	for _, e := range n.entries {
		decodeEntry(r, base, prefix, fields, t, e)
	}
}

func decodeEntry[T any](r *reader, base, prefix string, fields []field[T], t *T, e entry) {
	key, path := prefix+e.key, join(base, e.key)
	i := slices.IndexFunc(fields, func(f field[T]) bool { return f.key == key && !strings.Contains(e.key, ".") })
	if i < 0 {
		if hasPrefix(fields, key+".") {
			if !e.value.null {
				decodeTable(r, path, key+".", fields, t, e.value)
			}
			return
		}
		r.unknown(e, base, known(fields, prefix))
		return
	}
	if first, twice := r.places[path]; twice {
		r.problems = append(r.problems, duplicate(e.pos, path, first))
		return
	}
	r.places[path] = e.value.pos
	if e.value.null {
		return
	}
	r.key, r.secret = path, fields[i].secret
	fields[i].set(r, t, e.value)
	r.secret = false
}

// unknown tells of a key that is none: which one was probably meant, or else all
// there are.
func (r *reader) unknown(e entry, base string, known []string) {
	p := Problem{
		File: e.file, Line: e.line, Column: e.column, Key: base,
		Message: fmt.Sprintf("unknown key %q", e.key), Suggestion: didYouMean(e.key, known),
	}
	if p.Suggestion == "" {
		p.Accepted = strings.Join(known, ", ")
	}
	r.problems = append(r.problems, p)
}

func hasPrefix[T any](fields []field[T], prefix string) bool {
	return slices.ContainsFunc(fields, func(f field[T]) bool { return strings.HasPrefix(f.key, prefix) })
}

// known lists what may stand in a table: the keys below prefix, up to their
// next dot.
func known[T any](fields []field[T], prefix string) []string {
	var names []string
	for _, f := range fields {
		if rest, ok := strings.CutPrefix(f.key, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	return slices.Compact(names)
}

// file reads one file's tree into f.
func (r *reader) file(root *node, f *File) {
	top := []string{"programs", "daemon", "email"}
	for _, e := range root.entries {
		switch {
		case e.key == "programs":
			r.programs(e, f)
		case e.key == "daemon":
			r.table(e, func() { decodeTable(r, "daemon", "", daemonFields, &f.Daemon, e.value) })
		case e.key == "email" && e.value.kind != tableNode:
			r.recipients(e, f)
		case e.key == "email":
			decodeTable(r, "email", "", emailFields, &f.Email, e.value)
		case slices.Contains(keys(topFields), e.key):
			decodeEntry(r, "", "", topFields, f, e)
		default:
			r.unknown(e, "", append(top, keys(topFields)...))
		}
	}
}

func (r *reader) table(e entry, read func()) {
	if !e.value.null {
		read()
	}
}

// recipients reads taskmaster's email: an address only. There mail goes to the
// machine's own server, which seldom has a certificate.
func (r *reader) recipients(e entry, f *File) {
	decodeEntry(r, "", "", []field[Email]{declare("email", addressesCodec, func(m *Email) *[]string { return &m.To }, "", Live, "")}, &f.Email, e)
	f.Email.TLS = "none"
}

// programs reads the table of programs.
func (r *reader) programs(e entry, f *File) {
	r.places["programs"] = e.pos
	if e.value.null {
		return
	}
	if e.value.kind != tableNode {
		r.key = "programs"
		r.fault(e.value, "not a table of programs but "+e.value.kind.String(), "")
		return
	}
	for _, p := range e.value.entries {
		r.program(p, f)
	}
}

func (r *reader) program(e entry, f *File) {
	path := join("programs", e.key)
	r.key = "programs"
	if !validName(e.key) {
		r.problems = append(r.problems, Problem{e.file, e.line, e.column, "programs", e.key, "not a name for a program", namesAccept, ""})
		return
	}
	if first, twice := r.places[path]; twice {
		r.problems = append(r.problems, duplicate(e.pos, path, first))
		return
	}
	r.places[path] = e.pos
	p := r.base
	p.Name = e.key
	if !e.value.null {
		before := len(r.problems)
		decodeTable(r, path, "", programFields, &p, e.value)
		if e.value.kind != tableNode {
			return
		}
		if len(r.problems) > before && p.Cmd == nil && e.value.get("cmd") != nil {
			p.Cmd = []string{p.Name} // it is not missing; what is wrong with it was told
		}
	}
	r.problems = append(r.problems, r.placed(path, e.pos, check(&p))...)
	f.Programs = append(f.Programs, &p)
}

// placed gives problems of a program their keys' places, or the program's own.
func (r *reader) placed(path string, own pos, problems []Problem) []Problem {
	for i := range problems {
		p := &problems[i]
		at, given := r.places[join(path, p.Key)]
		if !given {
			at = own
		}
		p.File, p.Line, p.Column, p.Key = at.file, at.line, at.column, join(path, p.Key)
	}
	return problems
}

// Validate returns what is wrong with a program as a whole: what no key alone
// can show. The keys of the problems are those of the program.
func Validate(p *Program) []Problem { return append(check(p), checkUser(p)...) }

func check(p *Program) []Problem {
	var problems []Problem
	if len(p.Cmd) == 0 {
		problems = append(problems, Problem{Key: "cmd", Message: "missing", Accepted: "a program to run and its arguments"})
	}
	if p.Backoff.Max < p.Backoff.Initial {
		problems = append(problems, Problem{
			Key: "backoff.max", Value: formatDuration(p.Backoff.Max),
			Message: "shorter than backoff.initial, " + formatDuration(p.Backoff.Initial),
		})
	}
	return append(problems, logsLack(p)...)
}

// flagNode makes the node of a flag's values.
func flagNode(f field[Program], values []string) (*node, error) {
	switch {
	case f.table:
		return flagTable(f.key, values)
	case len(values) == 1 && !f.repeated:
		return scalar(pos{}, values[0]), nil
	case f.repeated || f.key == "cmd":
		return list(pos{}, values), nil
	}
	return nil, fmt.Errorf("%s: %d values given, one is accepted", f.key, len(values))
}

func flagTable(key string, values []string) (*node, error) {
	texts := map[string]string{}
	for _, value := range values {
		name, text, ok := strings.Cut(value, "=")
		if !ok {
			return nil, fmt.Errorf("%s: %q has no = (accepted: NAME=VALUE)", key, value)
		}
		texts[name] = text
	}
	n := &node{kind: tableNode}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		n.entries = append(n.entries, entry{key: name, value: scalar(pos{}, texts[name])})
	}
	return n, nil
}
