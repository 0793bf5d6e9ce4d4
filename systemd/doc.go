// Package systemd speaks with a service manager in the way of systemd: it tells
// how a service is ([Manager]), takes over the sockets that were opened for it
// ([Files]) and writes to the journal ([Journal]). It is for daemons and for what
// stands before a service; without a service manager everything in it is quiet.
//
// It knows protocols only. What is to be told, and when, is decided by its
// callers.
package systemd
