package subcmd

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"pm.example/socket"
	"pm.example/systemd"
)

// journaldLog is the word that sends the daemon's log to the journal.
const journaldLog = "journald"

// priorities are those of the levels, the least urgent first.
var priorities = []struct {
	from     slog.Level
	priority systemd.Priority
}{
	{slog.LevelDebug, systemd.PriorityDebug},
	{slog.LevelInfo, systemd.PriorityInfo},
	{slog.LevelWarn, systemd.PriorityWarning},
	{slog.LevelError, systemd.PriorityError},
}

// rank returns the index in priorities of a level.
func rank(level slog.Level) int {
	n := len(priorities) - 1
	for n > 0 && level < priorities[n].from {
		n--
	}
	return n
}

// eventKey is where the context of a log record has the [socket.Event] that it
// tells of.
type eventKey struct{}

// journalHandler writes log records to the journal, as entries that can be found
// by their fields: every attribute is one, and those of an event tell its type and
// program as well. What the journal does not take goes to another handler.
type journalHandler struct {
	journal *systemd.Journal
	other   slog.Handler
	attrs   []slog.Attr
	failing *atomic.Bool
}

// newJournalHandler returns a handler for the journal, or if there is none, for
// other, which is told why.
func newJournalHandler(path string, other slog.Handler) slog.Handler {
	j, err := systemd.OpenJournal(path)
	if err != nil {
		slog.New(other).Warn("the log goes to standard error, since there is no journal", "error", err)
		return other
	}
	return &journalHandler{journal: j, other: other, failing: &atomic.Bool{}}
}

// Enabled reports whether a record of the level is written.
func (h *journalHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.other.Enabled(ctx, level)
}

// Handle writes a record.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	r.AddAttrs(h.attrs...)
	err := h.journal.Send(h.fields(ctx, r)...)
	if err == nil {
		h.failing.Store(false)
		return nil
	}
	if !h.failing.Swap(true) {
		slog.New(h.other).Warn("the log goes to standard error, until the journal takes it again", "error", err)
	}
	return h.other.Handle(ctx, r)
}

func (h *journalHandler) fields(ctx context.Context, r slog.Record) []systemd.Field {
	fields := []systemd.Field{
		{Name: "MESSAGE", Value: plainText(ctx, r)},
		{Name: "PRIORITY", Value: strconv.Itoa(int(priorities[rank(r.Level)].priority))},
		{Name: "SYSLOG_IDENTIFIER", Value: "pm"},
	}
	if e, ok := ctx.Value(eventKey{}).(socket.Event); ok {
		fields = append(fields, systemd.Field{Name: "PM_EVENT", Value: e.Type})
		if e.Program != "" {
			fields = append(fields, systemd.Field{Name: "PM_PROGRAM", Value: e.Program})
		}
	}
	r.Attrs(func(a slog.Attr) bool {
		fields = append(fields, systemd.Field{Name: systemd.FieldName("PM_", a.Key), Value: a.Value.Resolve().String()})
		return true
	})
	return fields
}

// plainText is a record as text, without what the journal keeps beside it.
func plainText(ctx context.Context, r slog.Record) string {
	var b bytes.Buffer
	_ = slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: onlyWords}).Handle(ctx, r)
	return strings.TrimSpace(b.String())
}

// onlyWords leaves out the time and the level of a record.
func onlyWords(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey && a.Value.Kind() == slog.KindTime || a.Key == slog.LevelKey {
		return slog.Attr{}
	}
	return a
}

// WithAttrs returns a handler that adds attributes to every record.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.attrs = append(append([]slog.Attr(nil), h.attrs...), attrs...)
	with.other = h.other.WithAttrs(attrs)
	return &with
}

// WithGroup returns the handler itself: the journal's fields have no groups.
func (h *journalHandler) WithGroup(string) slog.Handler { return h }

// prefixHandler writes records as text lines that begin with their priority, as
// the journal reads them from the standard error of a service.
type prefixHandler []slog.Handler // by rank

func newPrefixHandler(out io.Writer) slog.Handler {
	var h prefixHandler
	for _, p := range priorities {
		h = append(h, slog.NewTextHandler(prefixWriter{out, "<" + strconv.Itoa(int(p.priority)) + ">"}, &slog.HandlerOptions{ReplaceAttr: onlyWords}))
	}
	return h
}

// Enabled reports whether a record of the level is written.
func (h prefixHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h[rank(level)].Enabled(ctx, level)
}

// Handle writes a record.
func (h prefixHandler) Handle(ctx context.Context, r slog.Record) error {
	return h[rank(r.Level)].Handle(ctx, r)
}

// WithAttrs returns a handler that adds attributes to every record.
func (h prefixHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithAttrs(attrs) })
}

// WithGroup returns a handler whose attributes are in a group.
func (h prefixHandler) WithGroup(name string) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithGroup(name) })
}

func (h prefixHandler) each(change func(slog.Handler) slog.Handler) slog.Handler {
	changed := make(prefixHandler, len(h))
	for n, one := range h {
		changed[n] = change(one)
	}
	return changed
}

// prefixWriter puts a prefix before what is written, which is a line.
type prefixWriter struct {
	out    io.Writer
	prefix string
}

// Write writes the prefix and p at once.
func (w prefixWriter) Write(p []byte) (int, error) {
	_, err := w.out.Write(append([]byte(w.prefix), p...))
	return len(p), err
}

// onJournal reports whether stderr leads to the journal.
func onJournal(e *env) bool {
	file, ok := e.stderr.(*os.File)
	return ok && systemd.OnJournal(file, e.getenv("JOURNAL_STREAM"))
}
