package proc

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The last descriptors that this process may have are spare, and no descriptor is none
// of them.
func TestSpareFiles(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	first := int(limit.Cur) - spareFiles
	for fd, want := range map[int]bool{-1: false, 0: false, first - 1: false, first: true, int(limit.Cur) - 1: true} {
		if IsSpare(fd) != want {
			t.Errorf("descriptor %d of %d is spare: %v", fd, limit.Cur, !want)
		}
	}
}
