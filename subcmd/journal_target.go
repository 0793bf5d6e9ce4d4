package subcmd

import (
	"bytes"
	"strconv"

	"pm.example/output"
	"pm.example/systemd"
)

// journalTarget makes each line that programs print an entry of the journal.
type journalTarget struct {
	path    string
	journal *systemd.Journal // nil: it is to be connected
}

func newJournalTarget(path string) output.Target { return &journalTarget{path: path} }

// Send sends the first line.
func (t *journalTarget) Send(p output.Printed) (n int, err error) {
	if t.journal == nil {
		if t.journal, err = systemd.OpenJournal(t.path); err != nil {
			t.journal = nil
			return 0, err
		}
	}
	line, _, _ := bytes.Cut(p.Data, []byte("\n"))
	n = min(len(line)+1, len(p.Data))
	priority := systemd.PriorityInfo
	if p.Stream == output.Stderr {
		priority = systemd.PriorityError
	}
	fields := []systemd.Field{
		{Name: "MESSAGE", Value: string(line)},
		{Name: "PRIORITY", Value: strconv.Itoa(int(priority))},
		{Name: "SYSLOG_IDENTIFIER", Value: p.Instance},
		{Name: "PM_INSTANCE", Value: p.Instance},
		{Name: "PM_STREAM", Value: p.Stream.String()},
	}
	if p.Repeated {
		fields = append(fields, systemd.Field{Name: "PM_REPEATED", Value: "1"})
	}
	if err := t.journal.TrySend(fields...); err != nil {
		return 0, err
	}
	return n, nil
}

// Close closes the connection.
func (t *journalTarget) Close() {
	if t.journal != nil {
		t.journal.Close()
		t.journal = nil
	}
}
