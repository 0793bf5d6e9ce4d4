package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds a YAML document after its aliases are resolved.
const maxNodes = 1_000_000

// parseYAML reads a YAML text into a tree.
func parseYAML(file, src string) (*node, []Problem) {
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(src)))
	var document yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return &node{pos: pos{file, 1, 1}, kind: tableNode}, nil
	}
	if err != nil {
		p := yamlSyntax(file, err)
		if line := faultyLine(src); line > 0 {
			p.Line, p.Column = line, 1
		}
		return nil, []Problem{p}
	}
	t := &yamlTree{file: file}
	root := t.node(document.Content[0], "", 0)
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		t.problems = append(t.problems, moreDocuments(file, err))
	}
	if root.null {
		root = &node{pos: root.pos, kind: tableNode}
	}
	return root, t.problems
}

func moreDocuments(file string, err error) Problem {
	if err != nil {
		return yamlSyntax(file, err)
	}
	return Problem{File: file, Message: "more than one YAML document in the file", Suggestion: `remove what follows the second "---"`}
}

// yamlSyntax turns the library's error into a problem with its line.
func yamlSyntax(file string, err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: file, Message: "not valid YAML: " + message}
	rest, ok := strings.CutPrefix(message, "line ")
	if !ok {
		return p
	}
	number, text, ok := strings.Cut(rest, ": ")
	if line, err := strconv.Atoi(number); ok && err == nil {
		p.Line, p.Column, p.Message = line, 1, "not valid YAML: "+text
	}
	return p
}

// maxLooked bounds the files whose faulty line is looked for.
const maxLooked = 1000

// faultyLine returns the line behind the longest beginning of a faulty text that is
// valid, or 0 if the text is too long. The library tells where the table begins that
// it could not read, and that less one, or nothing.
func faultyLine(src string) int {
	lines := strings.SplitAfter(src, "\n")
	if len(lines) > maxLooked {
		return 0
	}
	for n := len(lines) - 1; n > 0; n-- {
		if yaml.Unmarshal([]byte(strings.Join(lines[:n], "")), &yaml.Node{}) == nil {
			return n + 1
		}
	}
	return 1
}

type yamlTree struct {
	file     string
	problems []Problem
	nodes    int
}

// node builds the tree of a YAML node that stands at the key path.
func (t *yamlTree) node(y *yaml.Node, path string, depth int) *node {
	n := &node{pos: pos{t.file, y.Line, y.Column}}
	if y.Kind == yaml.AliasNode {
		y = y.Alias
	}
	if t.nodes++; t.nodes > maxNodes || depth > maxDepth {
		t.tooMuch(n.pos)
		return n
	}
	switch y.Kind {
	case yaml.MappingNode:
		n.kind = tableNode
		t.mapping(n, y, path, depth)
	case yaml.SequenceNode:
		n.kind = listNode
		for _, item := range y.Content {
			n.items = append(n.items, t.node(item, path, depth+1))
		}
	default:
		n.text, n.raw, n.isString = y.Value, y.Value, true
		n.null = y.Tag == "!!null"
	}
	return n
}

// tooMuch notes, once, that the document is beyond the bounds.
func (t *yamlTree) tooMuch(at pos) {
	message := fmt.Sprintf("the document nests more than %d deep, or has more than %d values", maxDepth, maxNodes)
	for _, p := range t.problems {
		if p.Message == message {
			return
		}
	}
	t.problems = append(t.problems, Problem{File: at.file, Line: at.line, Column: at.column, Message: message})
}

// mapping adds the entries of a mapping, with those of its merge key (<<)
// behind its own.
func (t *yamlTree) mapping(n *node, y *yaml.Node, path string, depth int) {
	var merged []*yaml.Node
	seen := map[string]pos{}
	for i := 0; i+1 < len(y.Content); i += 2 {
		key, value := y.Content[i], y.Content[i+1]
		at := pos{t.file, key.Line, key.Column}
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			t.problems = append(t.problems, Problem{File: at.file, Line: at.line, Column: at.column, Key: path, Message: "a key is not a single word"})
			continue
		}
		if first, twice := seen[key.Value]; twice {
			t.problems = append(t.problems, duplicate(at, join(path, key.Value), first))
			continue
		}
		seen[key.Value] = at
		kid := t.node(value, join(path, key.Value), depth+1)
		kid.folded = value.Line > key.Line
		n.entries = append(n.entries, entry{at, key.Value, kid})
	}
	for _, m := range merged {
		t.merge(n, m, path, depth)
	}
}

// merge adds what a merge key refers to, where n has no entry of its own.
func (t *yamlTree) merge(n *node, y *yaml.Node, path string, depth int) {
	from := t.node(y, path, depth+1)
	for _, table := range from.elements() {
		for _, e := range table.entries {
			if n.get(e.key) == nil {
				n.entries = append(n.entries, e)
			}
		}
	}
}

// join appends a key to a path of keys.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
