// Package output keeps what programs print, and hands it out as lines.
//
// A program whose output does not go straight to a file writes into pipes. One
// [Loop] reads the pipes of all programs, with one thread and one buffer, into
// one [Log] an instance: a bounded ring from which any number of readers take
// the last lines ([Log.Tail]) or all that come ([Log.Follow]) without ever
// holding up the program. For programs that write to their file themselves
// there are [TailFile] and [FollowFile], which hand out the same [Line]s.
//
// Where a file is to be rotated, or lines are to be changed on their way, the loop
// writes it for the program: a [File]. What is no file, as syslog or a terminal, is an
// [Outlet].
//
// What a Log keeps can stand in files as well, so that it outlives the process
// that reads the pipes ([OpenLog]).
//
// Bytes are never changed unless that is asked for: a line may hold NUL or invalid UTF-8. The package
// starts no process and knows nothing of programs.
package output
