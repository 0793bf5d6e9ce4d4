package socket

import (
	"context"
	"encoding/json"
	"fmt"
)

// Service is what the server serves; the daemon implements it. All methods are
// called from many goroutines at once and return when ctx ends, which it does
// when the client goes away or the server stops.
//
// An error may be, or wrap, a [*Problem]: its Code chooses the HTTP status, and
// message and hint reach the client as they are. Any other error is answered
// with 500.
type Service interface {
	// Status tells of the selected instances; no selector means all.
	Status(ctx context.Context, selectors []string) (Status, error)

	// These act on what Request.Selectors name, which are never empty. A target
	// that fails is an Outcome, not an error.
	Start(ctx context.Context, by Peer, req Request) (Result, error)
	Stop(ctx context.Context, by Peer, req Request) (Result, error)
	Restart(ctx context.Context, by Peer, req Request) (Result, error)
	Signal(ctx context.Context, by Peer, req Request) (Result, error)
	Scale(ctx context.Context, by Peer, req Request) (Result, error)
	Rotate(ctx context.Context, by Peer, req Request) (Result, error)
	Reopen(ctx context.Context, by Peer, req Request) (Result, error)
	Clear(ctx context.Context, by Peer, req Request) (Result, error)
	// Input writes to the standard input of what is selected.
	Input(ctx context.Context, by Peer, req InputRequest) (Result, error)

	// Reload reads the config again. It returns what it did, or would do.
	Reload(ctx context.Context, by Peer, req ReloadRequest) (Plan, error)
	// Shutdown begins the daemon's end and returns without waiting for it: the
	// answer has to leave before the server does.
	Shutdown(ctx context.Context, by Peer, req ShutdownRequest) error
	// Upgrade begins the replacement of the daemon's program and returns without
	// waiting for it.
	Upgrade(ctx context.Context, by Peer, req UpgradeRequest) error
	// Wait returns when all selected instances are as wanted.
	Wait(ctx context.Context, req WaitRequest) (Result, error)
	// Config returns the effective configuration in the file's own schema.
	Config(ctx context.Context) (json.RawMessage, error)
	// Version names the daemon's version.
	Version() Version
	// Metrics tells in Prometheus's text format how all instances are.
	Metrics(ctx context.Context) (Exposition, error)

	// Logs hands over lines, of instances or of the daemon's own log, until there
	// are no more or, when following, until ctx ends. An error of emit means that the client is gone: return it.
	//
	// emit may wait for the client, for as long as it goes on reading and for
	// at most 10 s when it does not: call it without holding a lock, and let
	// whoever feeds it drop lines rather than wait for it. The server buffers
	// 256 KiB for each client. emit may be called from several goroutines.
	Logs(ctx context.Context, req LogsRequest, emit func(LogLine) error) error
	// Events hands over the kept events after req.Since and, when following,
	// all new ones until ctx ends. An error of emit means that the client is
	// gone: return it.
	//
	// emit never waits: the server buffers 4 MiB for each client, about 10,000
	// events, and cuts off a client that falls further behind. So it may be
	// called by whoever publishes events, and a service that keeps a few
	// thousand events can replay them all at once.
	Events(ctx context.Context, req EventsRequest, emit func(Event) error) error
}

// Peer is the process at the other end of a connection, as the kernel knew it
// when the connection was made.
type Peer struct {
	PID int // 0 if it is in a PID namespace that cannot be seen from here
	UID int
	GID int
}

// String returns the peer in the form of [Event.By].
func (p Peer) String() string { return fmt.Sprintf("uid %d pid %d", p.UID, p.PID) }
