package output

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileBlock = 64 << 10 // read at a time
	maxTail   = 16 << 20 // the most that TailFile holds in memory
)

// TailFile returns the last n lines of a file, or all if n is negative, and the
// place after them, from which [FollowFile] goes on. A last line without a
// newline is there as Partial. Of the file's last 16 MiB at most: if that is
// not enough, the first line is a gap with Lost set.
func TailFile(path string, n int) ([]Line, Place, error) {
	f, info, err := openFile(path)
	if err != nil {
		return nil, Place{}, fmt.Errorf("cannot read the last lines: %w", err)
	}
	defer f.Close()
	lines, err := tail(f, info.Size(), n)
	if err != nil {
		return nil, Place{}, fmt.Errorf("cannot read the last lines: %w", err)
	}
	g, err := identify(f)
	if err != nil {
		return nil, Place{}, fmt.Errorf("cannot read the last lines: %w", err)
	}
	for i := range lines {
		lines[i].Place.Source = g.source
	}
	return lines, Place{g.source, [2]uint64{uint64(info.Size())}}, nil
}

// openFile opens a regular file. Anything else could block, or has no end.
func openFile(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// tail returns the last n lines of the first size bytes of f.
func tail(f io.ReaderAt, size int64, n int) ([]Line, error) {
	floor := max(0, size-maxTail)
	start, found, err := startOfLast(f, floor, size, n)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size-start)
	got, err := f.ReadAt(data, start)
	if err != nil && err != io.EOF { // the end: it was cut short since
		return nil, err
	}
	var lines []Line
	if !found && start > 0 {
		lines = append(lines, gap(start))
	}
	s := splitter{read: uint64(start)}
	s.emit = func(l Line) error {
		l.Place.Read[0] = s.read
		lines = append(lines, l)
		return nil
	}
	// Collecting cannot fail.
	_ = s.add(data[:got], time.Time{}, uint64(start))
	_ = s.flush(false)
	return lines, nil
}

// startOfLast returns where the last n lines before size begin, and whether
// there are so many after floor; if not, it returns floor.
func startOfLast(f io.ReaderAt, floor, size int64, n int) (int64, bool, error) {
	if n < 0 || size == floor {
		return floor, false, nil
	}
	if n == 0 {
		return size, true, nil
	}
	buf := make([]byte, fileBlock)
	end := size - 1 // a newline at the very end ends the last line
	for end > floor {
		block := buf[:min(fileBlock, end-floor)]
		end -= int64(len(block))
		if _, err := f.ReadAt(block, end); err != nil && err != io.EOF {
			return 0, false, err
		}
		for i := len(block); n > 0; n-- {
			if i = bytes.LastIndexByte(block[:i], '\n'); i < 0 {
				break
			}
			if n == 1 {
				return end + int64(i) + 1, true, nil
			}
		}
	}
	return floor, false, nil
}
