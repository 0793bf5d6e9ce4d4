package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// FollowFile calls fn with every line that comes after offset in the file at
// path, until the context ends or fn fails; it returns the context's or fn's
// error. It waits for a file that is not there yet.
//
// A file that becomes shorter than what was read is read again from its
// beginning. When another file takes its name, the old one is read until there
// is something in the new one: a writer that was told to reopen it may be late.
// A file that is cut short and grows past the old place before anyone looks is
// not noticed.
func FollowFile(ctx context.Context, path string, offset int64, fn func(Line) error) error {
	w := newWatcher(path)
	defer w.close()
	r := &fileReader{path: path, offset: offset, lines: splitter{emit: fn}}
	defer r.close()
	for {
		// Watch first, look then: whatever happens later wakes us again.
		w.watch()
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		if err := w.wait(ctx); err != nil {
			return err
		}
	}
}

// fileReader reads what is new in the file at path.
type fileReader struct {
	path   string
	file   *os.File // nil: there was none yet
	info   os.FileInfo
	offset int64
	lines  splitter
	buf    []byte
}

// catchUp reads what there is, of this file and of the one that has taken its
// place.
func (r *fileReader) catchUp(ctx context.Context) error {
	for {
		if err := r.open(); err != nil || r.file == nil {
			return err
		}
		if err := r.read(ctx); err != nil {
			return err
		}
		if !r.replaced() {
			return nil
		}
		// What was written between the last read and the first byte in the
		// new file.
		if err := r.read(ctx); err != nil {
			return err
		}
		if err := r.lines.flush(true); err != nil {
			return err
		}
		r.close()
	}
}

// open opens the file, if it is there and not open yet.
func (r *fileReader) open() error {
	if r.file != nil {
		return nil
	}
	f, info, err := openFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		r.offset = 0 // it was in another file
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot follow: %w", err)
	}
	r.file, r.info = f, info
	return nil
}

// close lets go of the file: the next one is read from its beginning.
func (r *fileReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file, r.offset = nil, 0
	}
}

// read reads to the end of the open file.
func (r *fileReader) read(ctx context.Context) error {
	if err := r.rewind(); err != nil {
		return err
	}
	if r.buf == nil {
		r.buf = make([]byte, fileBlock)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.file.ReadAt(r.buf, r.offset)
		if err != nil && err != io.EOF {
			return fmt.Errorf("cannot follow: %w", err)
		}
		data := bytes.Clone(r.buf[:n]) // the lines keep it
		if err := r.lines.add(data, time.Time{}, uint64(r.offset)); err != nil {
			return err
		}
		if r.offset += int64(n); err == io.EOF {
			return nil
		}
	}
}

// rewind goes back to the beginning of a file that was cut short.
func (r *fileReader) rewind() error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("cannot follow: %w", err)
	}
	if info.Size() >= r.offset {
		return nil
	}
	r.offset = 0
	return r.lines.flush(true)
}

// replaced reports whether another file, with something in it, has the name.
func (r *fileReader) replaced() bool {
	info, err := os.Stat(r.path)
	return err == nil && info.Size() > 0 && !os.SameFile(info, r.info)
}
