package proc

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strconv"

	"golang.org/x/sys/unix"
)

// A tag marks every process of a task: the hard limit RLIMIT_RTTIME, set to a
// number that no other task has. It is inherited through fork and exec, through
// setsid, a double fork, a cleared environment and a new parent; it can be
// lowered but, without privilege, never raised; and one system call reads it.
// The limit itself is of thousands of years of real-time CPU, so it never bites.
//
// Tags nest: the tags of a task are the range of [tagSpan.width] numbers that
// ends with its own, and a pm inside the task takes its tags from that range.
// So a scan for a task also finds what an inner pm started.
const (
	tagTop    = uint64(1) << 61 // tags of an outermost pm lie below
	tagWidth1 = uint64(1) << 24 // range of one task of an outermost pm
	tagWidth2 = uint64(1) << 8  // … of a pm inside such a task
	tagWidth3 = uint64(1)       // … of a pm inside that
)

// tagSpan is the stock of tags of one keeper. Not safe for concurrent use.
type tagSpan struct {
	top   uint64 // tags are at most this
	slots uint64 // how many there are
	width uint64
	next  uint64
}

// newTagSpan looks at the limit that pm itself runs under and chooses a stock.
// Below three levels there is none left: ok is false.
func newTagSpan() (span *tagSpan, ok bool) {
	var own unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_RTTIME, nil, &own); err != nil {
		return nil, false
	}
	switch top := own.Max; {
	case top > tagTop: // no tag: outermost
		span = &tagSpan{top: tagTop, slots: tagTop / 2 / tagWidth1, width: tagWidth1}
	case top < tagTop/2: // a limit somebody set for its own sake
		return nil, false
	case top%tagWidth1 == 0:
		span = &tagSpan{top: top - tagWidth2, slots: tagWidth1/tagWidth2 - 1, width: tagWidth2}
	case top%tagWidth2 == 0:
		span = &tagSpan{top: top - tagWidth3, slots: tagWidth2 - 1, width: tagWidth3}
	default:
		return nil, false
	}
	// Two keepers may share a range; a random start keeps them apart.
	span.next = rand.Uint64N(span.slots)
	return span, true
}

// take returns a tag that used does not report.
func (s *tagSpan) take(used func(tag uint64) bool) uint64 {
	for range s.slots {
		tag := s.top - s.next*s.width
		s.next = (s.next + 1) % s.slots
		if !used(tag) {
			return tag
		}
	}
	return 0
}

// base returns the tag of the task that a process with the given limit belongs
// to, and whether it is in this keeper's stock at all. There may be no stock.
func (s *tagSpan) base(limit uint64) (tag uint64, ours bool) {
	if s == nil || limit > s.top || s.top-limit >= s.slots*s.width {
		return 0, false
	}
	return s.top - (s.top-limit)/s.width*s.width, true
}

// readTag returns the tag limit of a process. Another user's process refuses
// prlimit(2) without CAP_SYS_RESOURCE, but not its limits file.
func readTag(pid int) (uint64, error) {
	var lim unix.Rlimit
	err := unix.Prlimit(pid, unix.RLIMIT_RTTIME, nil, &lim)
	if err == unix.EPERM {
		return readTagFile(pid)
	}
	return lim.Max, err
}

func readTagFile(pid int) (uint64, error) {
	var buf [maxLimits]byte
	n, err := readProc(pid, "limits", buf[:])
	if err != nil {
		return 0, err
	}
	return parseTag(buf[:n])
}

// maxLimits is more than the text of /proc/PID/limits takes.
const maxLimits = 1 << 12

// parseTag finds the hard limit in the text of /proc/PID/limits.
func parseTag(data []byte) (uint64, error) {
	const name = "\nMax realtime timeout"
	_, after, ok := bytes.Cut(data, []byte(name))
	if !ok {
		return 0, errLimits
	}
	line, _, _ := bytes.Cut(after, []byte{'\n'})
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return 0, errLimits
	}
	if string(fields[1]) == "unlimited" {
		return ^uint64(0), nil
	}
	return strconv.ParseUint(string(fields[1]), 10, 64)
}

var errLimits = errors.New("no realtime timeout in the limits file")
