package scrape

import (
	"bytes"
	"slices"
)

// A document grows in a slice whose length is its capacity, so that words can be
// stored anywhere in it; n is how far it is written. begin makes room for all
// that the line can become, at once.

// expansion is how many bytes of a document a byte of a line becomes at most: a
// control character is written as \u001f. A key without a value takes 9 bytes
// for 2.
const expansion = 6

// begin starts a document for a line of a size behind what dst holds, and
// returns dst, longer, and the place to go on at.
func (c *Converter) begin(dst []byte, size int) (out []byte, n int) {
	c.timed = false
	c.members.reset()
	room := len(c.frame) + expansion*size + c.rules.growth*min(size/2, maxMembers) + c.rules.growth + len(tail) + slack
	n = len(dst)
	out = slices.Grow(dst, room)
	out = out[:cap(out)]
	return out, n + copy(out[n:], c.frame)
}

// tail stands for what is written behind the last member of a document.
const tail = `,"message":"","truncated":true,"@timestamp":"2006-01-02T15:04:05.000Z"}` + "\n"

// end finishes a document: without those members that came again, and with a
// time.
func (c *Converter) end(out []byte, n int) []byte {
	n = c.members.compact(out, n)
	if !c.timed {
		n += copy(out[n:], `,"@timestamp":"`)
		n += copy(out[n:], c.clock.text())
		n += copy(out[n:], `"`)
	}
	n += copy(out[n:], "}\n")
	return out[:n]
}

// rename writes the name that a rule wants over the key of the member that begins
// at a place of out, with its comma, and returns the name's end.
func rename(out []byte, at int, name string) (end int) {
	return at + 2 + copy(out[at+2:], name)
}

// settle does what a rule says of the member from at to n, or notes it if there is no
// rule for its key. It returns the new end, as members.add does.
func (c *Converter) settle(r *rule, out []byte, at, keyEnd, n int, hash uint32) int {
	if r == nil {
		return c.members.add(out, at, keyEnd, n, hash)
	}
	return c.apply(r, out, at, keyEnd, n)
}

// apply does what a rule says of the member from at to n; keyEnd is the place
// behind its name. It returns the new end, as members.add does.
func (c *Converter) apply(r *rule, out []byte, at, keyEnd, n int) int {
	switch {
	case r.drop:
		return at
	case !r.time:
		return c.members.add(out, at, keyEnd, n, r.hash)
	case isTimeString(out[keyEnd+2 : n]):
		c.timed = true
		return c.members.add(out, at, keyEnd, n, r.hash)
	case r.dropOtherwise:
		return at
	}
	moved := at + 2 + len(r.otherwise)
	n = moved + copy(out[moved:], out[keyEnd:n])
	rename(out, at, r.otherwise)
	return c.members.add(out, at, moved, n, r.otherwiseHash)
}

// maxMembers is how many members the line of a document may have; Elasticsearch
// has the same limit for the fields of an index. It bounds the time that is spent
// on finding keys that come again.
const maxMembers = 1000

// members are those of the document that is being made, so that keys that come
// again are found. They stand one behind the other, each with its comma.
type members struct {
	list  [maxMembers]mark // count of them
	count int
	dead  int        // of these
	seen  [16]uint64 // a bit for each hash: most keys are new, and this tells at once
}

// mark is a member's place in the document, and the hash of its key.
type mark struct {
	at   int
	hash uint32
	dead bool
}

func (m *members) reset() {
	m.count = 0
	m.dead = 0
	m.seen = [16]uint64{}
}

// lacks reports whether there is room for a member, and none with that hash.
func (m *members) lacks(hash uint32) bool {
	return m.count < maxMembers && m.seen[hash>>6&15]&(1<<(hash&63)) == 0
}

// add notes a member from at to n, whose name ends at keyEnd and has a hash. One
// with the same name that was there is dead from now on. It returns n, or a
// negative number if there is no room.
func (m *members) add(out []byte, at, keyEnd, n int, hash uint32) int {
	if m.count == maxMembers {
		return -1
	}
	if !m.lacks(hash) {
		m.kill(out, out[at+1:keyEnd+1], hash)
	}
	m.push(at, hash)
	return n
}

// push notes a member that begins at a place. There has to be room for it.
func (m *members) push(at int, hash uint32) {
	m.list[m.count] = mark{at: at, hash: hash}
	m.count++
	m.seen[hash>>6&15] |= 1 << (hash & 63)
}

// kill marks the member with a name, which is in its quotes, as dead.
func (m *members) kill(out, name []byte, hash uint32) {
	for i := range m.count {
		k := &m.list[i]
		if k.hash == hash && !k.dead && bytes.HasPrefix(out[k.at+1:], name) {
			k.dead = true
			m.dead++
			return
		}
	}
}

// compact removes the dead from a document that ends at n, and returns its new
// end.
func (m *members) compact(out []byte, n int) int {
	if m.dead == 0 {
		return n
	}
	to := m.list[0].at
	for i, k := range m.list[:m.count] {
		end := n
		if i+1 < m.count {
			end = m.list[i+1].at
		}
		if !k.dead {
			to += copy(out[to:], out[k.at:end])
		}
	}
	return to
}

// hashKey hashes a key by its first and last eight bytes and its length. It reads
// up to seven bytes behind it. It need not withstand attacks, see maxMembers.
func hashKey(key []byte) uint32 {
	word := load(key[:8], 0)
	if size := len(key); size < 8 {
		word &= 1<<(8*size) - 1
	} else {
		word += load(key, size-8)<<1 + uint64(size)
	}
	return uint32(word * 0x9e3779b97f4a7c15 >> 40)
}
