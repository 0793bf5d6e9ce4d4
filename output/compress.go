package output

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// compressor compresses rotated files of a loop, one after the other. Whoever is
// killed in between leaves a file as it was or the whole compressed one: that gets its
// name when nothing is missing, and then the other is removed.
type compressor struct {
	mu    sync.Mutex // guards all below
	queue []*File
	ended chan struct{} // closed when run has returned; nil: it does not run
	stop  bool
}

// add has the rotated files of f compressed in a while.
func (c *compressor) add(f *File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop || slices.Contains(c.queue, f) {
		return
	}
	c.queue = append(c.queue, f)
	if c.ended == nil {
		c.ended = make(chan struct{})
		go c.run(c.ended) // ends when nothing is left to do, or with close
	}
}

func (c *compressor) run(ended chan struct{}) {
	defer close(ended)
	for f := c.next(); f != nil; f = c.next() {
		if err := f.compress(c.stopped); err != nil {
			f.tell(Condition{Compression: fmt.Errorf("cannot compress %s: %w", f.path, err)})
		}
	}
}

// next takes the next file; nil if there is none.
func (c *compressor) next() *File {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop || len(c.queue) == 0 {
		c.ended = nil
		return nil
	}
	f := c.queue[0]
	c.queue = c.queue[1:]
	return f
}

func (c *compressor) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop
}

// wait returns when nothing is being compressed.
func (c *compressor) wait() {
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
}

// close gives up what is not done.
func (c *compressor) close() {
	c.mu.Lock()
	c.stop = true
	c.mu.Unlock()
	c.wait()
}

// firstCompressed is the number from which on rotated files are compressed. Those
// who follow a file can read the latest to its end.
const firstCompressed = 2

// compress compresses what is not yet. A file that takes another name meanwhile is
// found again by its inode.
func (f *File) compress(stopped func() bool) error {
	for !stopped() {
		from, err := f.uncompressed()
		if from == nil || err != nil {
			return err
		}
		done, err := f.compressOne(from, stopped)
		_ = from.Close()
		if err != nil || !done {
			return err
		}
	}
	return nil
}

// uncompressed opens the latest file that is to be compressed; nil: all are.
func (f *File) uncompressed() (*os.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list, err := settled(f.path)
	if err != nil || !f.options.Compress {
		return nil, err
	}
	for _, o := range list {
		if o.suffix == "" && o.number >= firstCompressed {
			return os.Open(o.path(f.path))
		}
	}
	return nil, nil
}

// compressOne puts a compressed file in the place of an open one.
func (f *File) compressOne(from *os.File, stopped func() bool) (done bool, err error) {
	part := f.path + ".gzip"
	defer func() { _ = os.Remove(part) }() // if it has that name still
	if err := writeGzip(part, from, stopped); err != nil || stopped() {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list, err := history(f.path)
	if err != nil {
		return false, err
	}
	for _, o := range list {
		var other unix.Stat_t
		if o.suffix != "" || unix.Lstat(o.path(f.path), &other) != nil || other.Ino != st.Ino {
			continue
		}
		whole := old{number: o.number, suffix: ".gz"}
		if err := renameNew(part, whole.path(f.path)); err != nil {
			return false, err
		}
		return true, os.Remove(o.path(f.path))
	}
	return true, nil // it was one too many, and is gone
}

// writeGzip writes a compressed copy of a file, with its mode, owner and time.
func writeGzip(path string, from *os.File, stopped func() bool) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	_ = os.Remove(path) // of who was killed
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	z := gzip.NewWriter(to)
	z.ModTime = info.ModTime()
	_, err = io.Copy(z, &interruptible{from, stopped})
	err = errors.Join(err, z.Close(), to.Chmod(info.Mode().Perm()))
	var st unix.Stat_t
	if unix.Fstat(int(from.Fd()), &st) == nil {
		_ = to.Chown(int(st.Uid), int(st.Gid)) // root may
	}
	// Its name must not get to the disk before it does.
	err = errors.Join(err, to.Sync(), to.Close())
	return errors.Join(err, os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// interruptible is a reader that ends early when it is told to.
type interruptible struct {
	from    io.Reader
	stopped func() bool
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.stopped() {
		return 0, io.EOF
	}
	return r.from.Read(p)
}

// settled is history, without the files that stand there compressed as well: one was
// killed before it had removed them.
func settled(path string) ([]old, error) {
	list, err := history(path)
	if err != nil {
		return nil, err
	}
	compressed := map[int]bool{}
	for _, o := range list {
		compressed[o.number] = compressed[o.number] || o.suffix != ""
	}
	var errs []error
	list = slices.DeleteFunc(list, func(o old) bool {
		twice := o.suffix == "" && compressed[o.number]
		if twice {
			errs = append(errs, os.Remove(o.path(path)))
		}
		return twice
	})
	return list, errors.Join(errs...)
}
