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
	log  *slog.Logger
	wake chan struct{} // the queue is not empty any more, or the options are others

	mu    sync.Mutex // guards all below
	opts  Options
	fresh bool // Run has not seen the options yet
	send  func(context.Context, message) error
	queue []Event
	since time.Time // when the first of the queue came
	lost  int       // events that found the queue full
}

// New returns a mailer, or every fault of the options. A nil log is silent.
func New(opts Options, log *slog.Logger) (*Mailer, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m := newMailer(Options{}, log, nil)
	return m, m.Set(opts)
}

func newMailer(opts Options, log *slog.Logger, send func(context.Context, message) error) *Mailer {
	return &Mailer{opts: opts, fresh: true, log: log, send: send, wake: make(chan struct{}, 1)}
}

// Set puts other options into force, or returns every fault of them. What is queued
// is sent as they say; if they name nobody it is dropped.
func (m *Mailer) Set(opts Options) error {
	if err := opts.Check(); err != nil {
		return err
	}
	opts = opts.withDefaults()
	if opts.PasswordFile != "" && len(opts.To) > 0 {
		_, mode, _ := readPassword(opts.PasswordFile) // Check has read it
		if mode&0o070 != 0 {
			m.log.Warn("the password file is open to its group", "file", opts.PasswordFile, "mode", fmt.Sprintf("%04o", mode.Perm()))
		}
	}
	m.take(opts, (&sender{opts: opts, log: m.log}).send)
	return nil
}

// take goes on with other options and another way to send.
func (m *Mailer) take(opts Options, send func(context.Context, message) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opts, m.fresh, m.send = opts, true, send
	if len(opts.To) == 0 {
		m.queue, m.lost = nil, 0
	}
	m.stir()
}

// stir wakes Run. The caller holds m.mu.
func (m *Mailer) stir() {
	select {
	case m.wake <- struct{}{}:
	default: // Run has not seen the last one yet
	}
}

// Tell queues an event, if it is of a type that is wanted. It never waits:
// past 1,000 queued events it only counts.
func (m *Mailer) Tell(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.wants(e) {
		return
	}
	if len(m.queue) >= maxQueue {
		m.lost++
		return
	}
	if m.queue = append(m.queue, e); len(m.queue) > 1 {
		return
	}
	m.since = time.Now()
	m.stir()
}

// wants reports whether to tell of e. The caller holds m.mu.
func (m *Mailer) wants(e Event) bool {
	return !e.Expected && len(m.opts.To) > 0 && slices.ContainsFunc(m.opts.Events, func(t string) bool {
		return strings.EqualFold(t, e.Type)
	})
}

// Run sends what is told until the context ends, and then what is still
// queued, for which it takes 5 s at most and minds no interval. It returns an
// error only if that fails. It is to be called once.
func (m *Mailer) Run(ctx context.Context) error {
	sending, cancel := linger(ctx, lastWords)
	defer cancel()
	var p pace
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		m.keepPace(&p)
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

// keepPace takes options over that Run has not seen yet.
func (m *Mailer) keepPace(p *pace) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fresh {
		p.change(m.opts.Interval, m.opts.MaxPerHour)
	}
	m.fresh = false
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
			m.log.Error("cannot send mail; trying again with growing waits", "server", m.server(), "events", n, "error", err)
		}
		return
	}
	if p.failures > 0 {
		m.log.Info("mail goes out again", "server", m.server(), "events", n, "failures", p.failures)
	}
	p.sent(time.Now())
}

func (m *Mailer) server() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.opts.Server
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
	if limited {
		r.perHour = m.opts.MaxPerHour
	}
	send := m.send
	m.mu.Unlock()
	if err := send(ctx, r.message()); err != nil {
		return len(r.events), err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queue = slices.Delete(m.queue, 0, min(len(r.events), len(m.queue))) // Set may have emptied it
	m.lost = max(m.lost-r.lost, 0)
	m.since = time.Now() // for what came while it was sent
	return len(r.events), nil
}
