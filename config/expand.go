package config

import (
	"fmt"
	"strconv"
	"strings"

	shellquote "github.com/kballard/go-shellquote"
)

// reference is a ${…} or $$ in a text.
type reference struct {
	start, end int // in the text
	name       string
	op         string // ":-", ":?" or none; "$" for $$
	word       string // what follows op
}

// nextReference finds the first reference in text at or after from. A $ that
// begins neither ${ nor $$ stays as it is.
func nextReference(text string, from int) (ref reference, found bool, err error) {
	for i := from; i+1 < len(text); i++ {
		if text[i] != '$' {
			continue
		}
		if text[i+1] == '$' {
			return reference{start: i, end: i + 2, op: "$"}, true, nil
		}
		if text[i+1] == '{' {
			ref, err := parseReference(text, i)
			return ref, true, err
		}
	}
	return reference{}, false, nil
}

// parseReference reads the ${…} that starts at start.
func parseReference(text string, start int) (reference, error) {
	length := strings.IndexByte(text[start:], '}')
	if length < 0 {
		return reference{}, fmt.Errorf("%q is not closed by }", text[start:])
	}
	ref := reference{start: start, end: start + length + 1}
	inner := text[start+2 : start+length]
	ref.name = inner
	if at := strings.IndexByte(inner, ':'); at >= 0 {
		ref.name = inner[:at]
		ref.op = inner[at:min(at+2, len(inner))]
		ref.word = inner[at+len(ref.op):]
	}
	whole := text[start:ref.end]
	if !isVariable(ref.name) {
		return ref, fmt.Errorf("%q names no variable", whole)
	}
	if ref.op != "" && ref.op != ":-" && ref.op != ":?" {
		return ref, fmt.Errorf("%q is not known", whole)
	}
	if strings.Contains(ref.word, "${") {
		return ref, fmt.Errorf("%q has a reference inside a reference", whole+"}")
	}
	return ref, nil
}

// isVariable reports whether name can be that of an environment variable in a
// reference: letters, digits and _, not beginning with a digit.
func isVariable(name string) bool {
	for i := range len(name) {
		c := name[i]
		if c == '-' || !isBare(c) || i == 0 && '0' <= c && c <= '9' {
			return false
		}
	}
	return name != ""
}

// value is what the reference stands for.
func (ref reference) value(lookup func(string) (string, bool)) (string, error) {
	if ref.op == "$" {
		return "$", nil
	}
	value, set := lookup(ref.name)
	switch {
	case ref.op == ":-" && value == "":
		return ref.word, nil
	case ref.op == ":?" && value == "":
		return "", fmt.Errorf("variable %s is not set: %s", ref.name, ref.word)
	case !set:
		return "", fmt.Errorf("variable %s is not set", ref.name)
	case strings.ContainsRune(value, 0):
		return "", fmt.Errorf("variable %s holds a NUL byte", ref.name)
	}
	return value, nil
}

// expand replaces the references of text, once: what a variable holds is not
// looked at again. Without lookup the text stays as it is.
func expand(text string, lookup func(string) (string, bool)) (string, error) {
	if lookup == nil {
		return text, nil
	}
	var b strings.Builder
	done := 0
	for {
		ref, found, err := nextReference(text, done)
		if err != nil {
			return "", err
		}
		if !found {
			return b.String() + text[done:], nil
		}
		value, err := ref.value(lookup)
		if err != nil {
			return "", err
		}
		b.WriteString(text[done:ref.start] + value)
		done = ref.end
	}
}

// splitWords splits a command line like a shell, then replaces references, so
// that a value with spaces stays one word. For the split a reference is a NUL,
// its number and a NUL; text must hold no NUL of its own.
func splitWords(text string, lookup func(string) (string, bool)) ([]string, error) {
	var held []string
	var b strings.Builder
	done := 0
	for {
		ref, found, err := nextReference(text, done)
		if err != nil {
			return nil, err
		}
		if !found {
			break
		}
		value := text[ref.start:ref.end]
		if lookup != nil {
			if value, err = ref.value(lookup); err != nil {
				return nil, err
			}
		}
		b.WriteString(text[done:ref.start] + "\x00" + strconv.Itoa(len(held)) + "\x00")
		held = append(held, value)
		done = ref.end
	}
	words, err := shellquote.Split(b.String() + text[done:])
	if err != nil {
		return nil, fmt.Errorf("cannot be split into words: %s", strings.ToLower(err.Error()))
	}
	for i, word := range words {
		words[i] = restore(word, held)
	}
	return words, nil
}

// restore puts the held values back into a word.
func restore(word string, held []string) string {
	parts := strings.Split(word, "\x00")
	for i := 1; i < len(parts); i += 2 {
		number, err := strconv.Atoi(parts[i])
		if err == nil && number < len(held) {
			parts[i] = held[number]
		}
	}
	return strings.Join(parts, "")
}

// joinWords is the command line that splitWords splits into words.
func joinWords(words []string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = quoteWord(word)
	}
	return strings.Join(quoted, " ")
}

// quoteWord uses single quotes only: a backslash would come between the
// characters of a $$.
func quoteWord(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\n\r\\'\"`$[]{}|&;<>()*?!~#") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// escape doubles the $ of a text that would be read as a reference.
func escape(text string) string {
	if strings.Contains(text, "$$") || strings.Contains(text, "${") {
		return strings.ReplaceAll(text, "$", "$$")
	}
	return text
}
