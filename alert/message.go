package alert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	maxName    = 100  // runes of an instance or a type in a mail
	maxMessage = 1000 // runes of an event's message
	maxListed  = 10   // events that need no summary
)

// message is a mail without its addresses.
type message struct {
	subject, body string
}

// report is what a mail tells.
type report struct {
	host    string
	events  []Event // one at least
	lost    int     // events that are not among them, since too many waited
	perHour int     // if not 0, the limit that held this mail up
}

// gravity orders the types of events for the subject.
var gravity = map[string]int{"fatal": 4, "unknown": 3, "backoff": 2, "exited": 1}

// message writes the report.
func (r report) message() message {
	return message{subject: r.subject(), body: r.body()}
}

// subject names the gravest event, the first of them if there are several.
func (r report) subject() string {
	worst := r.events[0]
	for _, e := range r.events[1:] {
		if gravity[strings.ToLower(e.Type)] > gravity[strings.ToLower(worst.Type)] {
			worst = e
		}
	}
	subject := fmt.Sprintf("pm on %s: %s", oneLine(r.host, maxName), worst.what())
	if n := len(r.events) + r.lost; n > 1 {
		subject += fmt.Sprintf(" (%d events)", n)
	}
	return subject
}

// body has a line for each event, after what is to be said of them all.
func (r report) body() string {
	var b strings.Builder
	if r.perHour > 0 {
		fmt.Fprintf(&b, "Held back by the limit of %d mails an hour.\n\n", r.perHour)
	}
	if len(r.events) > maxListed {
		r.summary(&b)
	}
	for _, e := range r.events {
		fmt.Fprintf(&b, "%s  %s", e.Time.Format(time.RFC3339), e.what())
		if text := oneLine(e.Message, maxMessage); text != "" {
			b.WriteString("  " + text)
		}
		b.WriteByte('\n')
	}
	if r.lost > 0 {
		fmt.Fprintf(&b, "\n%d more events came while %d were waiting to be sent, and were not kept.\n", r.lost, maxQueue)
	}
	fmt.Fprintf(&b, "\n-- \npm on %s\n", oneLine(r.host, maxName))
	return b.String()
}

// summary counts the events of each instance and type, the most frequent first.
func (r report) summary(b *strings.Builder) {
	counts := map[string]int{}
	var kinds []string
	for _, e := range r.events {
		what := e.what()
		if counts[what]++; counts[what] == 1 {
			kinds = append(kinds, what)
		}
	}
	slices.SortStableFunc(kinds, func(a, b string) int { return cmp.Compare(counts[b], counts[a]) })
	for _, what := range kinds {
		fmt.Fprintf(b, "%5d  %s\n", counts[what], what)
	}
	b.WriteByte('\n')
}

// what says in two words what happened.
func (e Event) what() string {
	name := oneLine(cmp.Or(e.Instance, e.Program), maxName)
	return strings.TrimSpace(name + " " + strings.ToUpper(oneLine(e.Type, maxName)))
}

// oneLine makes any text fit for a header and for a line of the body: valid
// UTF-8 without control characters or line breaks, of limit runes at most.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.TrimSpace(s)
	if runes := []rune(s); len(runes) > limit {
		s = string(runes[:limit-1]) + "…"
	}
	return s
}
