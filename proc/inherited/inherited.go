// Package inherited remembers what pm got from its own parent and the Go
// runtime changes before main runs: the soft limit of open files, which
// package syscall raises to the hard limit. Programs that pm starts must see
// the limit that pm was given.
//
// It imports nothing. The language initialises packages in the order of their
// import paths as soon as what they import is ready (Go specification, "Program
// initialization"), so this one comes before package syscall.
package inherited

// rlimit is struct rlimit64 of prlimit(2).
type rlimit struct{ soft, hard uint64 }

var nofile = read()

// NoFile returns the soft and the hard limit of open files (RLIMIT_NOFILE)
// that this process was started with.
func NoFile() (soft, hard uint64) { return nofile.soft, nofile.hard }

func read() rlimit {
	const rlimitNoFile = 7
	var lim rlimit
	getrlimit(rlimitNoFile, &lim)
	return lim
}

// getrlimit is prlimit(0, resource, NULL, lim). On failure lim stays zero.
//
//go:noescape
func getrlimit(resource uintptr, lim *rlimit)
