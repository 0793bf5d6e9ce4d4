package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// sortedPairs is a map as pairs in the order of their keys.
func sortedPairs[V any](m map[string]V) pairs {
	var out pairs
	for _, key := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{key, m[key]})
	}
	return out
}

// MarshalJSON keeps the order of the keys.
func (p pairs) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, one := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := writeJSON(&b, one.key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := writeJSON(&b, one.value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// writeJSON writes a value without turning < and & into escapes.
func writeJSON(b *bytes.Buffer, value any) error {
	encoder := json.NewEncoder(b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the newline
	return nil
}

// add sets a dotted key, making the objects on its way.
func (p pairs) add(key string, value any) pairs {
	first, rest, nested := strings.Cut(key, ".")
	if !nested {
		return append(p, pair{key, value})
	}
	i := slices.IndexFunc(p, func(one pair) bool { return one.key == first })
	if i < 0 {
		return append(p, pair{first, pairs{}.add(rest, value)})
	}
	inner, _ := p[i].value.(pairs)
	p[i].value = inner.add(rest, value)
	return p
}

// shown is what t says, key by key; without the defaults if less is wanted.
func shown[T any](fields []field[T], t *T, defaults *T) pairs {
	var out pairs
	for _, f := range fields {
		value := f.get(t)
		if value == nil || defaults != nil && same(value, f.get(defaults)) {
			continue
		}
		out = append(out, pair{f.key, value})
	}
	return out
}

// nest turns dotted keys into objects.
func (p pairs) nest() pairs {
	var out pairs
	for _, one := range p {
		out = out.add(one.key, one.value)
	}
	return out
}

// JSON returns the effective configuration, defaults filled in and references
// replaced, in the file's own schema.
func (f *File) JSON() ([]byte, error) {
	programs := pairs{}
	for _, p := range f.Programs {
		programs = append(programs, pair{p.Name, shown(programFields, p, nil).nest()})
	}
	root := pairs{{"programs", programs}, {"daemon", shown(daemonFields, f.shownDaemon(), nil)}}
	if len(f.Email.To) > 0 {
		root = append(root, pair{"email", shown(emailFields, &f.Email, nil)})
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("cannot write the configuration as JSON: %w", err)
	}
	return b.Bytes(), nil
}

// shownDaemon is the daemon without what has no effect.
func (f *File) shownDaemon() *Daemon {
	d := f.Daemon
	d.Port, d.IP = 0, ""
	return &d
}

// TOML returns the effective configuration, defaults filled in and references
// replaced, as a file that means the same.
func (f *File) TOML() ([]byte, error) {
	w := &tomlWriter{escape: true}
	w.file(f, nil, nil, nil)
	return w.Bytes(), nil
}

// tomlWriter writes values as TOML. With escape, texts are written so that
// nothing in them is read as a reference.
type tomlWriter struct {
	bytes.Buffer
	escape bool
}

// file writes f, leaving out what equals the given defaults.
func (w *tomlWriter) file(f *File, program *Program, daemon *Daemon, email *Email) {
	if len(f.include) > 0 && program != nil {
		w.line("include", showList(f.include))
	}
	w.section("daemon", shown(daemonFields, f.shownDaemon(), daemon))
	if len(f.Email.To) > 0 {
		w.section("email", shown(emailFields, &f.Email, email))
	}
	if len(f.Programs) == 0 {
		w.header("programs")
	}
	for _, p := range f.Programs {
		w.program(p, program)
	}
}

func (w *tomlWriter) program(p, defaults *Program) {
	name := "programs." + tomlKey(p.Name)
	values := shown(programFields, p, defaults)
	w.header(name)
	w.lines(values)
	for _, one := range values {
		if table, ok := one.value.(pairs); ok {
			w.header(name + "." + one.key)
			w.lines(table)
		}
	}
}

func (w *tomlWriter) section(name string, values pairs) {
	if len(values) > 0 {
		w.header(name)
		w.lines(values)
	}
}

func (w *tomlWriter) header(name string) {
	if w.Len() > 0 {
		w.WriteByte('\n')
	}
	fmt.Fprintf(w, "[%s]\n", name)
}

// lines writes the values that are no tables.
func (w *tomlWriter) lines(values pairs) {
	for _, one := range values {
		if _, table := one.value.(pairs); !table {
			w.line(one.key, one.value)
		}
	}
}

func (w *tomlWriter) line(key string, value any) {
	fmt.Fprintf(w, "%s = %s\n", tomlDotted(key), w.value(value))
}

// tomlDotted writes a key of pm's own with its dots, any other in quotes if it
// needs them.
func tomlDotted(key string) string {
	first, rest, ok := strings.Cut(key, ".")
	if ok && hasPrefix(programFields, first+".") && slices.Contains(keys(programFields), key) {
		return first + "." + rest
	}
	return tomlKey(key)
}

func tomlKey(key string) string {
	for i := range len(key) {
		if !isBare(key[i]) {
			return tomlString(key)
		}
	}
	if key == "" {
		return `""`
	}
	return key
}

func (w *tomlWriter) value(value any) string {
	switch v := value.(type) {
	case string:
		if w.escape {
			v = escape(v)
		}
		return tomlString(v)
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = w.value(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case float64:
		text := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
	return fmt.Sprint(value)
}

// tomlString writes a string, in single quotes where that saves escapes.
func tomlString(s string) string {
	plain := !strings.ContainsFunc(s, func(c rune) bool { return unicode.IsControl(c) || c == unicode.ReplacementChar })
	if plain && strings.ContainsAny(s, `"\`) && !strings.Contains(s, "'") {
		return "'" + s + "'"
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteString(`\` + string(c))
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case unicode.IsControl(c):
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
