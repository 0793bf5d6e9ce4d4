package ship

// fifo is a queue of values. Popped places are used again, so that one of
// stable length allocates nothing.
type fifo[T any] struct {
	items []T
	head  int // of items: the oldest
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

// at returns the value i places behind the oldest. It is valid until the next
// push or pop.
func (f *fifo[T]) at(i int) *T { return &f.items[f.head+i] }

// last returns the newest value.
func (f *fifo[T]) last() *T { return &f.items[len(f.items)-1] }

func (f *fifo[T]) push(v T) {
	if len(f.items) == cap(f.items) && f.head > len(f.items)/2 {
		n := copy(f.items, f.items[f.head:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

func (f *fifo[T]) pop() T {
	v := f.items[f.head]
	f.head++
	if f.head == len(f.items) {
		f.clear()
	}
	return v
}

func (f *fifo[T]) clear() { f.items, f.head = f.items[:0], 0 }
