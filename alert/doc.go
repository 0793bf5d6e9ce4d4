// Package alert tells people of events by e-mail.
//
// A [Mailer] takes events at any time and never makes the teller wait. It
// gathers them into few mails: the first goes out a second after its first
// event, the next ones no closer together than [Options.Interval] and no more
// than [Options.MaxPerHour] in an hour. What cannot be sent is kept and tried
// again with growing waits; what cannot be kept is counted, and the next mail
// says so.
//
// A password goes over an encrypted connection only, or to this very machine;
// with STARTTLS a server that does not offer it gets no mail. The package knows
// nothing of programs and configuration files.
package alert
