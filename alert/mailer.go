package alert

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxQueue    = 1000             // events that wait to be sent
	sendTimeout = 30 * time.Second // for one mail
	lastWords   = 5 * time.Second  // for what is still queued at the end
)

// Event is something to tell of.
type Event struct {
	Time     time.Time
	Type     string // "fatal", "exited", "backoff" …
	Instance string
	Program  string
	Message  string
	// Expected marks an exit that is as it should be: nobody is told.
	Expected bool
}

// Mailer sends events by mail.
type Mailer struct {
	opts Options
	log  *slog.Logger
	send func(context.Context, message) error
	wake chan struct{} // the queue is not empty any more

	mu    sync.Mutex // guards all below
	queue []Event
	since time.Time // when the first of the queue came
	lost  int       // events that found the queue full
}

// New returns a mailer, or every fault of the options. A nil log is silent.
func New(opts Options, log *slog.Logger) (*Mailer, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts = opts.withDefaults()
	if err := opts.check(); err != nil {
		return nil, err
	}
	if opts.PasswordFile != "" {
		_, mode, _ := readPassword(opts.PasswordFile) // check has read it
		if mode&0o070 != 0 {
			log.Warn("the password file is open to its group", "file", opts.PasswordFile, "mode", fmt.Sprintf("%04o", mode.Perm()))
		}
	}
	s := &sender{opts: opts, log: log}
	return newMailer(opts, log, s.send), nil
}

func newMailer(opts Options, log *slog.Logger, send func(context.Context, message) error) *Mailer {
	return &Mailer{opts: opts, log: log, send: send, wake: make(chan struct{}, 1)}
}

// Tell queues an event, if it is of a type that is wanted. It never waits:
// past 1,000 queued events it only counts.
func (m *Mailer) Tell(e Event) {
	if !m.wants(e) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue) >= maxQueue {
		m.lost++
		return
	}
	if m.queue = append(m.queue, e); len(m.queue) > 1 {
		return
	}
	m.since = time.Now()
	select {
	case m.wake <- struct{}{}:
	default: // Run has not seen the last one yet
	}
}

// wants reports whether to tell of e.
func (m *Mailer) wants(e Event) bool {
	return !e.Expected && slices.ContainsFunc(m.opts.Events, func(t string) bool {
		return strings.EqualFold(t, e.Type)
	})
}

// Run sends what is told until the context ends, and then what is still
// queued, for which it takes 5 s at most and minds no interval. It returns an
// error only if that fails. It is to be called once.
func (m *Mailer) Run(ctx context.Context) error {
	sending, cancel := linger(ctx, lastWords)
	defer cancel()
	p := pace{interval: m.opts.Interval, perHour: m.opts.MaxPerHour}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		var due <-chan time.Time
		if since, ok := m.waiting(); ok {
			at, _ := p.due(since)
			timer.Reset(time.Until(at))
			due = timer.C
		}
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-due:
			m.deliver(sending, &p)
		}
	}
	return m.finish(sending)
}

// linger returns a context that ends d after ctx does.
func linger(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(d, cancel)
		context.AfterFunc(later, func() { t.Stop() })
	})
	return later, func() {
		stop()
		cancel()
	}
}

// waiting returns since when there is something to send, if there is.
func (m *Mailer) waiting() (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.since, len(m.queue) > 0
}

// deliver sends what is queued, and logs when that begins to fail and when it
// works again.
func (m *Mailer) deliver(ctx context.Context, p *pace) {
	since, _ := m.waiting()
	_, limited := p.due(since)
	n, err := m.flush(ctx, limited)
	if err != nil {
		if p.failed(time.Now()); p.failures == 1 {
			m.log.Error("cannot send mail; trying again with growing waits", "server", m.opts.Server, "events", n, "error", err)
		}
		return
	}
	if p.failures > 0 {
		m.log.Info("mail goes out again", "server", m.opts.Server, "events", n, "failures", p.failures)
	}
	p.sent(time.Now())
}

// finish sends what is queued for the last time.
func (m *Mailer) finish(ctx context.Context) error {
	if _, ok := m.waiting(); !ok {
		return nil
	}
	if n, err := m.flush(ctx, false); err != nil {
		return fmt.Errorf("cannot send the last %d events by mail: %w", n, err)
	}
	return nil
}

// flush sends all that is queued in one mail and returns how many events that
// is. They leave the queue when they are sent.
func (m *Mailer) flush(ctx context.Context, limited bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	m.mu.Lock()
	r := report{host: m.opts.Host, events: slices.Clone(m.queue), lost: m.lost}
	m.mu.Unlock()
	if limited {
		r.perHour = m.opts.MaxPerHour
	}
	if err := m.send(ctx, r.message()); err != nil {
		return len(r.events), err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = slices.Delete(m.queue, 0, len(r.events))
	m.lost -= r.lost
	m.since = time.Now() // for what came while it was sent
	return len(r.events), nil
}
