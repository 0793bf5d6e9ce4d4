package output

import "time"

// guardTime is how long a pipe rests whose log may not forget anything.
const guardTime = 20 * time.Millisecond

// Guard keeps what comes after a place from being forgotten, until Guard is called
// with a later one: when nothing more can be kept, in memory and in the files, the
// pipes are not read, and so the program waits when they are full. A place in another
// log guards all that is kept.
func (l *Log) Guard(p Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.Source != l.source {
		p.Read = l.dropped
	}
	l.guarded, l.guard = true, p.Read
}

// Unguard ends that.
func (l *Log) Unguard() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guarded = false
}

// spares reports whether size bytes, no more than a chunk's, can be taken without
// forgetting what is guarded. The caller holds l.mu.
func (l *Log) spares(size int) bool {
	if !l.guarded {
		return true
	}
	if s := l.store; s != nil && !s.failing && s.size+int64(size) >= s.limit && !l.passed(s.begun) {
		return false // the older segment would go
	}
	const needed = 2 // chunks: size bytes, with their records
	free, gone := maxChunks-len(l.chunks), l.dropped
	for _, c := range l.chunks {
		if free >= needed {
			break
		}
		for stream, n := range c.sizes() {
			gone[stream] += n
		}
		if !l.passed(gone) {
			return false
		}
		free++
	}
	return free >= needed
}

// passed reports whether the guard is at or after so many bytes of each stream.
func (l *Log) passed(read [2]uint64) bool { return l.guard[0] >= read[0] && l.guard[1] >= read[1] }

// sizes counts the bytes of each stream in a chunk.
func (c *chunk) sizes() (n [2]uint64) {
	begin := int32(0)
	for _, r := range c.records {
		if !r.cut {
			n[r.stream-1] += uint64(r.end - begin)
		}
		begin = r.end
	}
	return n
}
