// Package keeper is what makes programs outlive the daemon that decides about
// them. The keeper is a process that owns the programs, by a [proc.Keeper], and
// knows nothing else; the worker is another one, its child, which holds the
// configuration, the states and the control socket. The worker may crash, be
// killed or be replaced at any time: [Run], in the keeper, starts the next one,
// which is told of all tasks again.
//
// They talk over a pair of sockets, in frames. In the worker, [Link] is the host
// of the runner. Nothing that the worker does or fails to do holds up the keeper:
// what it does not take waits in the tables of the keeper, not in a queue.
package keeper
