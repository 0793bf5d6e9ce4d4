package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rotate begins a new file, if there is something in this one. A line that is not
// finished yet stays whole: its rest comes first.
func (f *File) Rotate() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil
	}
	if err == nil {
		err = f.open()
	}
	if err == nil && f.options.formatted() {
		err = f.openSpool(nil)
	}
	if errors.As(err, new(later)) || err == nil && f.midLine {
		f.ripe = true
		return nil
	}
	if err == nil {
		err = f.rotate()
	}
	if err != nil {
		return fmt.Errorf("cannot rotate %s: %w", f.path, err)
	}
	return nil
}

// rotate makes the file path.1, and begins a new one with the same mode and owner.
// A kill in between leaves a number out, or the new file to be made later; no file
// is ever replaced by another.
func (f *File) rotate() error {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return err
	}
	list, err := settled(f.path)
	if err == nil {
		err = shift(f.path, list)
	}
	if err != nil {
		return err
	}
	f.closeTarget()
	f.ripe = false
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, st.Mode&0o777)
	if err != nil {
		return err
	}
	_ = unix.Fchmod(fd, st.Mode&0o777) // whatever the umask
	_ = unix.Fchown(fd, int(st.Uid), int(st.Gid))
	f.fd, f.size, f.owner = fd, -1, nil
	f.squeeze()
	return errors.Join(f.look(), f.prune())
}

// adopt tells who compresses what is rotated, and has that begin with what a killed
// process has left.
func (f *File) adopt(c *compressor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.compressor == nil {
		f.compressor = c
		f.squeeze()
	}
}

// squeeze has what was rotated compressed, if that is wanted.
func (f *File) squeeze() {
	if f.options.Compress && f.compressor != nil {
		f.compressor.add(f)
	}
}

// old is a file that was rotated.
type old struct {
	number int
	suffix string // ".gz", or nothing
	size   int64
}

func (o old) path(path string) string { return path + "." + strconv.Itoa(o.number) + o.suffix }

// history lists the rotated files of path, the latest first.
func history(path string) ([]old, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var list []old
	prefix := filepath.Base(path) + "."
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		digits, suffix := strings.CutSuffix(rest, ".gz")
		number, err := strconv.Atoi(digits)
		if err != nil || number < 1 || strconv.Itoa(number) != digits {
			continue
		}
		o := old{number: number}
		if suffix {
			o.suffix = ".gz"
		}
		if info, err := e.Info(); err == nil {
			o.size = info.Size()
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b old) int { return a.number - b.number })
	return list, nil
}

// shift makes room for path as path.1: those up to the first number that is free
// move on by one, the last first.
func shift(path string, list []old) error {
	end, free := 0, 1
	for end < len(list) && list[end].number <= free {
		free = list[end].number + 1
		end++
	}
	for _, o := range slices.Backward(list[:end]) {
		next := o
		next.number++
		if err := renameNew(o.path(path), next.path(path)); err != nil {
			return err
		}
	}
	return renameNew(path, path+".1")
}

// renameNew gives a file a name that is free.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// This file system cannot say no: then we look.
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "rename", Path: to, Err: fs.ErrExist}
	}
	return os.Rename(from, to)
}

// prune deletes the oldest, as many as there are too many.
func (f *File) prune() error {
	list, err := history(f.path)
	if err != nil {
		return err
	}
	var total int64
	var errs []error
	for n, o := range list {
		total += o.size
		if n >= f.options.Files || f.options.Total > 0 && total+f.options.Size > f.options.Total {
			errs = append(errs, os.Remove(o.path(f.path)))
		}
	}
	return errors.Join(errs...)
}
