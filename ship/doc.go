// Package ship brings finished lines to receivers: over TCP, TLS, UDP and Unix
// sockets, into files, and to receivers that Consul knows. It does not look into
// lines; package scrape makes them, and the two meet in subcmd.
//
// A [Shipper] has a queue of bounded size in memory, and a spool on disk if it is
// given a directory. [Shipper.Ship] puts lines into the queue; [Shipper.Run]
// takes them out, connects, waits longer after each failure, and connects
// again.
//
// # What is known of delivery
//
// Logs are sent over TCP without answers, so a receiver never says what it has.
// The kernels do: what the receiver's kernel has not acknowledged is known to
// the sender's. A chunk of lines therefore stays in the queue when it has been
// written, until it is acknowledged, and further until [Options.Resend] bytes
// after it are acknowledged too, because what the receiver's kernel has taken
// dies with a receiver that has not read it. When a connection breaks, all of
// that is sent again: lines come at least once, and no more than Resend and the
// socket's own buffer come twice. A receiver that closes the connection by itself
// has read what was acknowledged, since a kernel resets a connection that is
// closed with bytes unread; then only what was not acknowledged, and of the rest
// what is less than ten seconds old, is sent again: the receiver may have been
// killed before it had dealt with what it read.
//
// UDP has none of this: what is sent is gone.
//
// The package never writes to standard error: what a user should know goes to
// [Options.Tell], and everything is counted in [Counters].
package ship
