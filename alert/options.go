package alert

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Options say whom to tell of which events, and through which server.
type Options struct {
	To           []string      // addresses; none: nobody is told
	From         string        // an address; default: pm@Host
	Server       string        // host:port; default port: 587, or 465 with "tls", 25 with "none"
	TLS          string        // "starttls" (the default), "tls" or "none"
	Username     string        // empty: no authentication
	PasswordFile string        // for Username; read whenever a mail is sent
	CAFile       string        // PEM certificates that take the place of the system's
	Events       []string      // types of events to tell of; default: fatal, exited, backoff
	Interval     time.Duration // between mails at least; default 30s
	MaxPerHour   int           // mails; default 20
	Host         string        // name of this machine for the subject; default: the system's
}

// The kinds of encryption.
const (
	tlsNone     = "none"
	tlsStartTLS = "starttls"
	tlsImplicit = "tls"
)

// ports are the usual ports for each kind of encryption.
var ports = map[string]string{tlsNone: "25", tlsStartTLS: "587", tlsImplicit: "465"}

// withDefaults fills in what is not set.
func (o Options) withDefaults() Options {
	o.TLS = strings.ToLower(o.TLS)
	if o.TLS == "" {
		o.TLS = tlsStartTLS
	}
	if len(o.Events) == 0 {
		o.Events = []string{"fatal", "exited", "backoff"}
	}
	if o.Interval == 0 {
		o.Interval = 30 * time.Second
	}
	if o.MaxPerHour == 0 {
		o.MaxPerHour = 20
	}
	if o.Host == "" {
		// Without a name the mail is still worth sending.
		o.Host, _ = os.Hostname()
	}
	if o.Host = oneLine(o.Host, 255); o.Host == "" {
		o.Host = "localhost"
	}
	if o.From == "" {
		o.From = "pm@" + o.Host
	}
	if _, _, err := net.SplitHostPort(o.Server); err != nil && o.Server != "" {
		o.Server = net.JoinHostPort(strings.Trim(o.Server, "[]"), ports[o.TLS])
	}
	return o
}

// Check returns every fault of the options at once. Where nobody is told there is
// none.
func (o Options) Check() error {
	if len(o.To) == 0 {
		return nil
	}
	o = o.withDefaults()
	return errors.Join(slices.Concat(o.checkAddresses(), o.checkServer(), o.checkLogin(), o.checkPace())...)
}

func (o Options) checkAddresses() (faults []error) {
	for _, to := range o.To {
		if _, err := mail.ParseAddress(to); err != nil {
			faults = append(faults, fmt.Errorf("email: to: %q is not an address: %v", to, err))
		}
	}
	if _, err := mail.ParseAddress(o.From); err != nil {
		faults = append(faults, fmt.Errorf("email: from: %q is not an address: %v", o.From, err))
	}
	return faults
}

func (o Options) checkServer() (faults []error) {
	if _, ok := ports[o.TLS]; !ok {
		faults = append(faults, fmt.Errorf("email: tls: %q is unknown: it is starttls, tls or none", o.TLS))
	}
	host, port, err := net.SplitHostPort(o.Server)
	if err != nil || host == "" {
		faults = append(faults, fmt.Errorf("email: server: %q is not host:port", o.Server))
	} else if n, err := strconv.Atoi(port); ports[o.TLS] != "" && (err != nil || n < 1 || n > 65535) {
		faults = append(faults, fmt.Errorf("email: server: %q: the port is not a number from 1 to 65535", o.Server))
	}
	if o.CAFile != "" {
		if _, err := readCAs(o.CAFile); err != nil {
			faults = append(faults, fmt.Errorf("email: ca_file: %w", err))
		}
	}
	return faults
}

func (o Options) checkLogin() (faults []error) {
	if (o.Username == "") != (o.PasswordFile == "") {
		return []error{errors.New("email: username and password_file go together: one of them is missing")}
	}
	if o.Username == "" {
		return nil
	}
	if host, _, _ := net.SplitHostPort(o.Server); o.TLS == tlsNone && !loopback(host) {
		faults = append(faults, fmt.Errorf("email: the password would go to %s unencrypted: use tls = \"starttls\" or \"tls\"", host))
	}
	if _, _, err := readPassword(o.PasswordFile); err != nil {
		faults = append(faults, fmt.Errorf("email: password_file: %w", err))
	}
	return faults
}

func (o Options) checkPace() (faults []error) {
	if o.Interval < 0 {
		faults = append(faults, fmt.Errorf("email: interval: %v is negative", o.Interval))
	}
	if o.MaxPerHour < 0 {
		faults = append(faults, fmt.Errorf("email: max_per_hour: %d is negative", o.MaxPerHour))
	}
	return faults
}

// loopback reports whether host is this machine. The names are those to which
// the mail library would send a password unencrypted.
func loopback(host string) bool {
	return host == "localhost" || host == "127.0.0.1" || host == "::1"
}
