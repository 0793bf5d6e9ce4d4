// Package runner keeps programs running.
//
// A [Group] owns every instance of every program: what it does, what it is
// meant to do, how often it was restarted. All of that lives in one goroutine,
// the one that calls [Group.Run]. Requests, ends of processes and timers reach
// it one at a time, so commands queue and an instance never has two live tasks.
//
// The runner decides when; package proc does it. It sees processes only through
// the small [Host] interface, so that a thousand restarts can be tested in
// milliseconds. It never looks at files or configuration: what to launch comes
// from [Program.Command], which is called anew for every launch.
package runner
