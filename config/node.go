package config

import (
	"slices"
	"strings"
)

// What a node can be.
const (
	scalarNode nodeKind = iota
	listNode
	tableNode
)

type nodeKind int

func (k nodeKind) String() string { return [...]string{"a single value", "a list", "a table"}[k] }

// node is a value of a config file in any syntax, with its place. All that
// follows the parsers reads nodes and knows no syntax.
type node struct {
	pos
	kind nodeKind
	// text is a scalar's value, and raw how it stands in the file: the octal
	// 022 and the decimal 22 differ in raw only.
	text, raw string
	// isString says that the value may be taken as a string: it is one, or
	// the syntax does not tell strings from numbers.
	isString bool
	// null is YAML's empty value: the key counts as not given.
	null bool
	// folded says that the value began on a later line than its key.
	folded  bool
	items   []*node
	entries []entry
}

// entry is one key of a table.
type entry struct {
	pos
	key   string
	value *node
}

// get returns the value of a key, or nil.
func (n *node) get(key string) *node {
	i := slices.IndexFunc(n.entries, func(e entry) bool { return e.key == key })
	if i < 0 {
		return nil
	}
	return n.entries[i].value
}

// scalar makes a node of a text.
func scalar(at pos, text string) *node {
	return &node{pos: at, text: text, raw: text, isString: true}
}

// list makes a node of texts that share a place.
func list(at pos, texts []string) *node {
	n := &node{pos: at, kind: listNode}
	for _, text := range texts {
		n.items = append(n.items, scalar(at, text))
	}
	return n
}

// elements returns the items of a list, or the node itself as the only one.
func (n *node) elements() []*node {
	if n.kind == listNode {
		return n.items
	}
	return []*node{n}
}

// short is the value as it is quoted in a message.
func (n *node) short() string {
	if n.kind != scalarNode {
		return ""
	}
	text := []rune(strings.ToValidUTF8(n.raw, "\uFFFD"))
	if len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(text)
}
