package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"pm.example/alert"
	"pm.example/config"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
	"pm.example/systemd"
)

// eventLog is where every event of the daemon goes: it numbers and keeps the
// latest ones, hands them to those who follow, writes them to the daemon's log
// and tells the mailer. Publishing never blocks.
type eventLog struct {
	log    *slog.Logger
	file   *logFile      // where log writes
	mailer *alert.Mailer // nil: no mail

	state     *state         // where events outlive the worker; nil: nowhere
	mu        sync.Mutex     // guards all below
	seq       uint64         // of the latest event; it begins with the clock, so that it grows across daemons
	kept      []socket.Event // a ring
	next      int            // where in it the next event goes
	count     int            // how many of it are filled
	noted     []socket.Event // not committed yet
	followers map[*follower]struct{}
	queue     []socket.Event // to be written to the log
	room      []socket.Event // empty: for the next queue
	lost      int            // events that the log could not take
	wake      chan struct{}
	stirred   chan struct{} // something else than an event took memory
}

type follower struct {
	emit func(socket.Event) error
	gone chan struct{} // closed when emit failed
}

// Bounds of the event log.
const (
	keptEvents   = 1000
	queuedEvents = 20000
	mostRoom     = 4096 // events that room is kept for, from one burst to the next
)

// Events come in bursts, and what they tell of goes first: a replacement is being
// launched, or a thousand programs stop. So they are logged when none has come for
// gatherFor, and none later than atLatest. Should the worker be killed before, the
// next one logs them.
const (
	gatherFor = 50 * time.Millisecond
	atLatest  = 200 * time.Millisecond
)

// trimAfter is how long no event must come before memory is given back.
const trimAfter = 3 * time.Second

func newEventLog(log *slog.Logger, file *logFile, mailer *alert.Mailer) *eventLog {
	return &eventLog{
		log: log, file: file, mailer: mailer, followers: map[*follower]struct{}{}, wake: make(chan struct{}, 1),
		stirred: make(chan struct{}, 1), seq: uint64(time.Now().UnixMicro()), kept: make([]socket.Event, keptEvents),
	}
}

// publish numbers an event, records it and hands it out.
func (l *eventLog) publish(e socket.Event) {
	l.note(e)
	if l.state != nil {
		l.state.Commit()
	}
}

// note numbers an event. It is handed out when the state is committed: an event
// that somebody has seen is not told once more by the next worker.
func (l *eventLog) note(e socket.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Schema, e.Seq = socket.Schema, l.seq
	if l.state == nil {
		l.hand(e)
		return
	}
	l.state.addEvent(e)
	l.noted = append(l.noted, e)
}

// committed hands out what was noted.
func (l *eventLog) committed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.noted {
		l.hand(e)
	}
	clear(l.noted)
	l.noted = l.noted[:0]
}

// restore puts back the events of an earlier worker, oldest first. Those after
// logged it has not brought to the log any more. If that is 0, nobody has noted so yet:
// then it is noted here, for the next worker.
func (l *eventLog) restore(events []socket.Event, logged uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		l.seq = e.Seq
		l.keep(e)
		if logged > 0 && e.Seq > logged {
			l.enqueue(e)
		}
	}
	if logged == 0 && l.state != nil {
		l.state.setLogged(l.seq)
	}
	l.seq = max(l.seq, uint64(time.Now().UnixMicro()))
}

// recent returns the kept events, oldest first.
func (l *eventLog) recent() (list []socket.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range l.count {
		list = append(list, l.kept[(l.next+keptEvents-l.count+n)%keptEvents])
	}
	return list
}

// keep puts an event into the ring. The caller holds l.mu.
func (l *eventLog) keep(e socket.Event) {
	l.kept[l.next%keptEvents] = e
	l.next = (l.next + 1) % keptEvents
	l.count = min(l.count+1, keptEvents)
}

// hand hands an event to those who follow, and to the log. The caller holds l.mu.
func (l *eventLog) hand(e socket.Event) {
	l.keep(e)
	for f := range l.followers {
		if err := f.emit(e); err != nil {
			delete(l.followers, f)
			close(f.gone)
		}
	}
	l.enqueue(e)
}

// enqueue has an event written to the log. The caller holds l.mu.
func (l *eventLog) enqueue(e socket.Event) {
	if len(l.queue) < queuedEvents {
		l.queue = append(l.queue, e)
	} else {
		l.lost++
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// events hands over the kept events after since and, if follow, all new ones
// until ctx ends.
func (l *eventLog) events(ctx context.Context, since uint64, follow bool, emit func(socket.Event) error) error {
	f := &follower{emit: emit, gone: make(chan struct{})}
	if err := l.replay(since, f, follow); err != nil || !follow {
		return err
	}
	select {
	case <-f.gone:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.followers, f)
	return nil
}

func (l *eventLog) replay(since uint64, f *follower, follow bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range l.count {
		e := l.kept[(l.next+keptEvents-l.count+n)%keptEvents]
		if e.Seq <= min(since, l.seq) {
			continue
		}
		if err := f.emit(e); err != nil {
			return err
		}
	}
	if follow {
		l.followers[f] = struct{}{}
	}
	return nil
}

// run writes events to the log, in the order of their publication, until ctx
// ends; what is queued then is still written. A log that cannot be written
// holds up nothing but itself.
//
// When it has been quiet for a while after a burst of events, or after something
// else that took much memory, that is given back.
func (l *eventLog) run(ctx context.Context) {
	quiet := time.NewTimer(trimAfter)
	defer quiet.Stop()
	for {
		select {
		case <-l.wake:
			l.gather(ctx)
			l.drain()
			quiet.Reset(trimAfter)
		case <-l.stirred:
			quiet.Reset(trimAfter)
		case <-quiet.C:
			l.trim()
		case <-ctx.Done():
			l.drain()
			return
		}
	}
}

// stir says that something else than an event took memory for a while.
func (l *eventLog) stir() {
	select {
	case l.stirred <- struct{}{}:
	default:
	}
}

// gather waits until a burst of events is over.
func (l *eventLog) gather(ctx context.Context) {
	before := l.queued()
	for begin := time.Now(); time.Since(begin) < atLatest; {
		select {
		case <-time.After(gatherFor):
		case <-ctx.Done():
			return
		}
		now := l.queued()
		if now == before {
			return
		}
		before = now
	}
}

// queued returns how many events wait to be logged.
func (l *eventLog) queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

func (l *eventLog) drain() {
	l.mu.Lock()
	queue, lost := l.queue, l.lost
	l.queue, l.lost, l.room = l.room, 0, nil
	l.mu.Unlock()
	if len(queue) == 0 {
		return
	}
	l.file.hold()
	for _, e := range queue {
		l.write(e)
	}
	if lost > 0 {
		l.log.Warn("events not logged: the log could not keep up", "events", lost)
	}
	l.file.release()
	if l.state != nil {
		l.state.setLogged(queue[len(queue)-1].Seq)
	}
	if cap(queue) > mostRoom {
		return
	}
	clear(queue)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room = queue[:0]
}

// trim gives back memory.
func (l *eventLog) trim() {
	l.mu.Lock()
	l.room = nil
	if len(l.queue) == 0 {
		l.queue = nil
	}
	l.mu.Unlock()
	if l.state != nil {
		l.state.trim()
	}
	proc.Trim()
}

// write logs one event as fields, and tells the mailer.
func (l *eventLog) write(e socket.Event) {
	record := slog.NewRecord(e.Time, eventLevel(e), e.Type, 0)
	add := func(key string, value any) { record.Add(key, value) }
	if e.Instance != "" {
		add("instance", e.Instance)
	}
	if e.PID != 0 {
		add("pid", e.PID)
	}
	if e.Task != nil && e.Task.ID != "" {
		add("task", e.Task.ID)
	}
	if e.Exit != nil {
		add("exit", exitText(e.Exit))
	}
	if e.By != "" {
		add("by", e.By)
	}
	if e.Message != "" {
		add("message", e.Message)
	}
	ctx := context.WithValue(context.Background(), eventKey{}, e)
	_ = l.log.Handler().Handle(ctx, record) // a log that cannot be written has nowhere to say so
	if l.mailer != nil {
		l.mailer.Tell(alert.Event{
			Time: e.Time, Type: e.Type, Instance: e.Instance, Program: e.Program, Message: e.Message,
			Expected: e.Exit != nil && e.Exit.Expected,
		})
	}
}

// eventLevel is how loudly an event is logged: deaths that nobody asked for and
// failures stand out.
func eventLevel(e socket.Event) slog.Level {
	switch runner.EventType(e.Type) {
	case runner.EventFatal, runner.EventLingering:
		return slog.LevelError
	case runner.EventBackoff:
		return slog.LevelWarn
	case runner.EventExited:
		if e.Exit != nil && !e.Exit.Expected {
			return slog.LevelWarn
		}
	}
	if e.Type == eventReloadFailed || e.Type == eventUpgradeFailed {
		return slog.LevelError
	}
	return slog.LevelInfo
}

// The types of events that are the daemon's own.
const (
	eventDaemonStarted = "daemon-started"
	eventDaemonStopped = "daemon-stopped"
	eventWorkerStarted = "worker-started"
	eventUpgraded      = "upgraded"
	eventUpgradeFailed = "upgrade-failed"
	eventReload        = "reload"
	eventReloadFailed  = "reload-failed"
	eventCommand       = "command"
)

// wireEvent puts an event of the runner into the form of the socket.
func wireEvent(e runner.Event) socket.Event {
	w := socket.Event{
		Time: e.Time.UTC(), Type: string(e.Type), Instance: e.Instance, Program: e.Program,
		PID: e.PID, Exit: wireExit(e.Exit), Message: e.Message,
	}
	if e.TaskID != "" {
		w.Task = &socket.Task{ID: e.TaskID, State: string(e.TaskState)}
	}
	return w
}

func exitText(e *socket.Exit) string {
	switch {
	case e.Unknown:
		return "unknown"
	case e.Signal != "":
		return "SIG" + e.Signal
	}
	return fmt.Sprint(e.Code)
}

// logFile is the daemon's log: a file that can be opened again, as log rotation
// asks for, or stderr. It is safe for concurrent use.
type logFile struct {
	path string // empty: stderr

	mu   sync.Mutex // guards all below
	out  io.Writer
	file *os.File // nil: stderr

	held   bool
	buffer []byte
}

func openLog(path string, stderr io.Writer) (*logFile, error) {
	if path == "" {
		return &logFile{out: stderr}, nil
	}
	f, err := appendTo(path)
	if err != nil {
		return nil, err
	}
	return &logFile{path: path, out: f, file: f}, nil
}

func appendTo(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log: %w (name another with --log, or daemon.log_file in the config)", err)
	}
	return f, nil
}

// Write appends to the log.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held && len(l.buffer) < maxHeld {
		l.buffer = append(l.buffer, p...)
		return len(p), nil
	}
	return len(p), errors.Join(l.flush(), ignoreCount(l.out.Write(p)))
}

// maxHeld bounds what is held back.
const maxHeld = 1 << 20

// hold gathers what is written until release, to be written at once.
func (l *logFile) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

func (l *logFile) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	_ = l.flush() // a log that cannot be written has nowhere to say so
}

// flush writes what was held back. The caller holds l.mu.
func (l *logFile) flush() error {
	if len(l.buffer) == 0 {
		return nil
	}
	_, err := l.out.Write(l.buffer)
	l.buffer = nil
	return err
}

func ignoreCount(_ int, err error) error { return err }

// reopen opens the file by its name again. If that fails the old one stays.
func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := appendTo(l.path)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.flush()
	_ = l.file.Close()
	l.out, l.file = f, f
	return nil
}

// logSink says where the daemon's log goes, and how.
type logSink struct {
	path   string // a file; "journald"; empty: stderr
	format string // text or json
}

// chosenLog is the sink that flags name, or else the file.
func chosenLog(o daemonOptions, d config.Daemon) logSink {
	path := d.LogFile
	if d.Log == journaldLog {
		path = journaldLog
	}
	return logSink{path: orElse(o.log, path), format: orElse(o.format, d.LogFormat)}
}

// openDaemonLog opens the daemon's log. The file is stderr where the journal takes
// the log.
func openDaemonLog(e *env, s logSink) (*logFile, *slog.Logger, error) {
	path := s.path
	if path == journaldLog {
		path = ""
	}
	file, err := openLog(path, e.stderr)
	if err != nil {
		return nil, nil, err
	}
	handler := newHandler(file, s.format)
	if path == "" && s.format != "json" && onJournal(e) {
		handler = newPrefixHandler(file)
	}
	if s.path == journaldLog {
		handler = newJournalHandler(systemd.JournalSocket, handler)
	}
	return file, slog.New(handler), nil
}

// newHandler writes log records in the given format, text or json, with times in
// UTC.
func newHandler(out io.Writer, format string) slog.Handler {
	options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime {
			a.Value = slog.TimeValue(a.Value.Time().UTC())
		}
		return a
	}}
	if format == "json" {
		return slog.NewJSONHandler(out, options)
	}
	return slog.NewTextHandler(out, options)
}

// stderrLog is the log of a process of the daemon that has no other, or not yet.
func stderrLog(e *env) *slog.Logger {
	if onJournal(e) {
		return slog.New(newPrefixHandler(e.stderr))
	}
	return slog.New(newHandler(e.stderr, "text"))
}
