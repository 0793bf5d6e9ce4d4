// Package proc is where pm meets the kernel: it starts processes, waits for
// them, signals them and ends whole process trees. Nothing else in pm starts,
// waits for or signals a process.
//
// A [Keeper] is the parent of every program. Its interface is message-like:
// spawn by task id, then [Event]s until they are taken, and a list of what
// lives. It knows tasks and processes; it knows nothing of programs, policies
// and times, which belong to package runner.
//
// A process tree is the process that a task spawned and all its descendants,
// also those that left its process group, its session or its parent. Three
// things hold it together: the keeper is a child subreaper (prctl(2)), so that
// orphans come to it; every task carries a tag, a resource limit that all
// descendants inherit and that a scan can read ([tag.go]); and a pidfd guards
// every signal, so that a reused pid is never hit.
//
// The package needs Linux 5.9 (close_range; pidfds came with 5.3).
package proc
