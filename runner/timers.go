package runner

import (
	"container/heap"
	"time"
)

// timers are the pending timers of all instances behind one runtime timer: with
// nothing pending, nothing wakes up. An instance has at most one.
type timers struct {
	heap  timerHeap
	clock *time.Timer
	armed time.Time
}

// entry is an instance's timer.
type entry struct {
	at    time.Time
	owner *instance
	index int
}

func newTimers() *timers {
	t := &timers{clock: time.NewTimer(time.Hour)}
	t.clock.Stop()
	return t
}

// set arms the timer of an instance, in place of what was pending.
func (t *timers) set(i *instance, d time.Duration) {
	t.clear(i)
	i.timer = &entry{at: time.Now().Add(d), owner: i}
	heap.Push(&t.heap, i.timer)
	t.arm()
}

// clear takes the timer of an instance away.
func (t *timers) clear(i *instance) {
	if i.timer == nil {
		return
	}
	heap.Remove(&t.heap, i.timer.index)
	i.timer = nil
}

// due returns the instances whose time has come, and takes their timers away.
func (t *timers) due(now time.Time) []*instance {
	var out []*instance
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		i := t.heap[0].owner
		t.clear(i)
		out = append(out, i)
	}
	t.armed = time.Time{}
	t.arm()
	return out
}

// arm sets the runtime timer to the earliest pending one.
func (t *timers) arm() {
	if len(t.heap) == 0 || !t.armed.IsZero() && !t.heap[0].at.Before(t.armed) {
		return
	}
	t.armed = t.heap[0].at
	t.clock.Reset(time.Until(t.armed))
}

// timerHeap orders entries by time.
type timerHeap []*entry

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(a, b int) bool { return h[a].at.Before(h[b].at) }
func (h timerHeap) Swap(a, b int) {
	h[a], h[b] = h[b], h[a]
	h[a].index, h[b].index = a, b
}

// Push is for container/heap.
func (h *timerHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop is for container/heap.
func (h *timerHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
