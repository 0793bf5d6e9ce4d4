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

// FollowFile calls fn with every line that comes after a place in the file at
// path, until the context ends or fn fails; it returns the context's or fn's
// error. It waits for a file that is not there yet.
//
// When another file takes its name, the old one is read until there is something
// in the new one: a writer that was told to reopen it may be late. Files that came
// between are read too, if they have names as rotation gives them (path.1,
// path-20261122); also when the place is in one that was renamed while nobody
// followed. If that is gone, a line with Lost set says so.
//
// A file that becomes shorter than what was read is read again from its
// beginning. One that is cut short and grows past the old place before anyone
// looks is not noticed.
func FollowFile(ctx context.Context, path string, from Place, fn func(Line) error) error {
	w := newWatcher(path)
	defer w.close()
	r := &fileReader{path: path, from: from}
	r.lines.emit = func(line Line) error {
		line.Place = Place{r.info.source, [2]uint64{r.lines.read}}
		return fn(line)
	}
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
	from   Place    // where to go on; without a Source at the beginning of the next file
	file   *os.File // nil: it is not open
	info   generation
	offset int64
	lines  splitter
	buf    []byte
}

// catchUp reads what there is, of this file and of those that have taken its
// place.
func (r *fileReader) catchUp(ctx context.Context) error {
	for {
		if err := r.open(); err != nil || r.file == nil {
			return err
		}
		if err := r.read(ctx); err != nil {
			return err
		}
		next, found := r.info.after(r.path)
		if !found {
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
		r.from = Place{Source: next.source}
	}
}

// open opens the file that is to be read, if it is there and not open yet.
func (r *fileReader) open() error {
	if r.file != nil {
		return nil
	}
	path := r.path
	if r.from.Source != 0 {
		if g, found := find(r.path, r.from.Source); found {
			path = g.path
		}
	}
	f, _, err := openFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the directory's watch tells of the next one
	}
	if err != nil {
		return fmt.Errorf("cannot follow: %w", err)
	}
	if r.info, err = identify(f); err != nil {
		f.Close()
		return fmt.Errorf("cannot follow: %w", err)
	}
	r.file = f
	return r.begin()
}

// begin goes to the place from which to read the file that was opened. If it is
// not the one where the place is, or no longer reaches to there, it begins at its
// beginning and says so.
func (r *fileReader) begin() error {
	from := r.from
	r.from = Place{}
	known := from.Source == r.info.source && from.Read[0] <= uint64(r.info.size)
	if known {
		r.offset = int64(from.Read[0])
	}
	r.lines.read = uint64(r.offset)
	if known || from.Source == 0 {
		return nil
	}
	return r.lines.emit(gap(UnknownLoss))
}

// close lets go of the file: the next one is read from its beginning.
func (r *fileReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file, r.offset, r.lines.read = nil, 0, 0
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
	err = r.lines.flush(true)
	r.offset, r.lines.read = 0, 0
	return err
}
