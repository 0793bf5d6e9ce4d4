package output

import (
	"cmp"
	"hash/fnv"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// generation is one of the files that have followed each other under a name: the
// one that has it now, or one that was renamed when the next was begun.
type generation struct {
	path   string
	source uint64 // stays the same when it is renamed
	born   int64  // nanoseconds since 1970; 0: the file system does not tell
	size   int64
}

// rotated is what is added to the name of a file that is put away: a number or a
// date. Compressed files are left out: what is in them cannot be read on.
var rotated = regexp.MustCompile(`^[.-][0-9][0-9TZ:._-]*$`)

// generations lists the files that have or had the name, the oldest first. While
// they are being renamed it looks again, so that none is overlooked.
func generations(path string) (list []generation) {
	list = listGenerations(path)
	for range 100 {
		again := listGenerations(path)
		same := slices.EqualFunc(list, again, func(a, b generation) bool { return a.path == b.path && a.source == b.source })
		if list = again; same {
			break
		}
	}
	return list
}

func listGenerations(path string) (list []generation) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path))
		if !ok || suffix != "" && !rotated.MatchString(suffix) {
			continue
		}
		if g, err := lookAt(filepath.Join(filepath.Dir(path), e.Name())); err == nil {
			list = append(list, g)
		}
	}
	slices.SortFunc(list, older)
	return list
}

// older compares files by age. The kernel's clock stands still for milliseconds;
// of what was born in one of its ticks, path is younger than path.1, and that
// younger than path.2.
func older(a, b generation) int {
	return cmp.Or(cmp.Compare(a.born, b.born), cmp.Compare(len(b.path), len(a.path)), cmp.Compare(b.path, a.path))
}

// lookAt tells what the file at path is. Something else than a file is none.
func lookAt(path string) (generation, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return generation{}, err
	}
	return generationOf(path, &st)
}

// identify tells what an open file is.
func identify(f *os.File) (g generation, err error) {
	var st unix.Statx_t
	conn, err := f.SyscallConn()
	if err != nil {
		return g, err
	}
	fault := conn.Control(func(fd uintptr) {
		err = unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if fault != nil {
		return g, fault
	}
	if err != nil {
		return g, err
	}
	return generationOf(f.Name(), &st)
}

func generationOf(path string, st *unix.Statx_t) (generation, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return generation{}, unix.EINVAL
	}
	g := generation{path: path, size: int64(st.Size)}
	if st.Mask&unix.STATX_BTIME != 0 {
		g.born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	// The number of a file that was removed is soon given to another, so it says
	// who is who only together with the time of birth.
	h := fnv.New64a()
	for _, n := range []uint64{uint64(st.Dev_major), uint64(st.Dev_minor), st.Ino, uint64(g.born)} {
		var b [8]byte
		for i := range b {
			b[i] = byte(n >> (8 * i))
		}
		_, _ = h.Write(b[:]) // never fails
	}
	g.source = h.Sum64() | 1
	return g, nil
}

// after returns the file that followed g under the name, if there is one with
// something in it. What was renamed and is gone, or compressed, is passed over.
func (g generation) after(path string) (next generation, found bool) {
	current, err := lookAt(path)
	if err != nil || current.source == g.source || current.size == 0 {
		return generation{}, false
	}
	if g.born == 0 {
		return current, true // no telling what came between
	}
	list := generations(path)
	list = list[slices.IndexFunc(list, func(o generation) bool { return o.source == g.source })+1:]
	for _, other := range list {
		if other.born >= g.born && other.size > 0 {
			return other, true
		}
	}
	return current, true
}

// find returns the file that is this source, under whichever name it has now.
func find(path string, source uint64) (generation, bool) {
	for _, g := range generations(path) {
		if g.source == source {
			return g, true
		}
	}
	return generation{}, false
}
