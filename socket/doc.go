// Package socket is the control API: HTTP/1.1 with JSON over a Unix socket,
// versioned under /v1/.
//
// It holds the wire types, the server and the client. The server knows nothing
// of programs: it calls a [Service], which the daemon implements. Every
// command, the shell and any other client go through the same routes, so what
// the command line can do, curl can.
package socket
