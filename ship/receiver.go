package ship

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// A Receiver is where lines go, as a user writes it: see [ParseReceiver].
type Receiver struct {
	Network string // tcp, tls, udp, unix, unixgram, file or stdout
	Address string // host:port, or a path; empty for stdout and with Service
	Service string // the name in Consul of those who receive, or empty

	// For services.
	Tag        string // only instances that have it; empty is any
	Datacenter string // empty is the agent's own

	// For tls: files in PEM form, and the name that the receiver's certificate
	// must be for. Empty are the system's authorities, no certificate, and the
	// host of Address.
	CA, Cert, Key, Name string

	text string
}

// receiverForms is what ParseReceiver accepts.
const receiverForms = "accepted: tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix:///PATH, unixgram:///PATH, consul+tcp://SERVICE, file:PATH, or - for standard output"

// ParseReceiver reads one of
//
//	tcp://HOST:PORT   udp://HOST:PORT   unix:///PATH   unixgram:///PATH
//	tls://HOST:PORT?ca=FILE&cert=FILE&key=FILE&name=NAME
//	consul+tcp://SERVICE?tag=TAG&dc=DATACENTER   (also consul+tls, consul+udp)
//	file:PATH   -
func ParseReceiver(text string) (Receiver, error) {
	if text == "-" {
		return Receiver{Network: "stdout", text: "standard output"}, nil
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		return parseFile(text, path)
	}
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return Receiver{}, fmt.Errorf("%q is no receiver (%s)", text, receiverForms)
	}
	u, err := url.Parse(text)
	if err != nil {
		return Receiver{}, fmt.Errorf("%q is no receiver: %v (%s)", text, errors.Unwrap(err), receiverForms)
	}
	if u.User != nil || u.Fragment != "" {
		return Receiver{}, fmt.Errorf("receiver %s://%s: neither a user nor a fragment means anything here", scheme, u.Host)
	}
	r := Receiver{Network: scheme, Address: u.Host, text: text}
	switch network, inConsul := strings.CutPrefix(scheme, "consul+"); {
	case inConsul:
		r.Network, r.Service, r.Address = network, u.Host, ""
		err = r.checkService(u)
	case scheme == "unix" || scheme == "unixgram":
		r.Address = u.Host + u.Path // unix://relative/path has its first part for a host
		err = r.checkPath()
	default:
		err = r.checkAddress(u)
	}
	if err != nil {
		return Receiver{}, fmt.Errorf("receiver %s: %w", text, err)
	}
	return r, r.takeParameters(u)
}

func parseFile(text, path string) (Receiver, error) {
	path = strings.TrimPrefix(path, "//")
	if path == "" {
		return Receiver{}, fmt.Errorf("receiver %s: no path given: file:PATH", text)
	}
	return Receiver{Network: "file", Address: path, text: text}, nil
}

func (r *Receiver) checkService(u *url.URL) error {
	switch {
	case !slices.Contains([]string{"tcp", "tls", "udp"}, r.Network):
		return fmt.Errorf("services are reached by consul+tcp, consul+tls or consul+udp, not consul+%s", r.Network)
	case r.Service == "":
		return errors.New("no service named: consul+" + r.Network + "://SERVICE")
	case u.Port() != "" || strings.Trim(u.Path, "/") != "":
		return errors.New("a service has neither port nor path: Consul knows where it is")
	}
	return nil
}

// maxSocketPath is the kernel's bound for the path of a Unix socket.
const maxSocketPath = 107

func (r *Receiver) checkPath() error {
	switch {
	case r.Address == "":
		return fmt.Errorf("no path given: %s:///PATH", r.Network)
	case len(r.Address) > maxSocketPath:
		return fmt.Errorf("the path has %d bytes, a socket's has at most %d", len(r.Address), maxSocketPath)
	}
	return nil
}

func (r *Receiver) checkAddress(u *url.URL) error {
	if !slices.Contains([]string{"tcp", "tls", "udp"}, r.Network) {
		return fmt.Errorf("unknown kind %q (%s)", r.Network, receiverForms)
	}
	if strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("the path %q means nothing here", u.Path)
	}
	host, port, err := net.SplitHostPort(u.Host)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("host and port are needed: %s://HOST:PORT", r.Network)
	}
	if _, err := net.LookupPort(r.transport(), port); err != nil {
		return fmt.Errorf("%q is no port", port)
	}
	return nil
}

// transport is the network as package net calls it.
func (r *Receiver) transport() string {
	if r.Network == "tls" {
		return "tcp"
	}
	return r.Network
}

// takeParameters reads what follows the ?. A parameter that means nothing for
// this kind of receiver is an error.
func (r *Receiver) takeParameters(u *url.URL) error {
	known := map[string]*string{}
	if r.Service != "" {
		known["tag"], known["dc"] = &r.Tag, &r.Datacenter
	}
	if r.Network == "tls" {
		known["ca"], known["cert"], known["key"], known["name"] = &r.CA, &r.Cert, &r.Key, &r.Name
	}
	for name, values := range u.Query() {
		field := known[name]
		if field == nil || len(values) != 1 || values[0] == "" {
			return fmt.Errorf("receiver %s: parameter %q is unknown here, given twice, or empty", r.text, name)
		}
		*field = values[0]
	}
	if (r.Cert == "") != (r.Key == "") {
		return fmt.Errorf("receiver %s: cert and key belong together", r.text)
	}
	return nil
}

// String returns the receiver as it was written.
func (r Receiver) String() string { return r.text }

// keeps reports whether the receiver's kernel tells what it has taken.
func (r Receiver) keeps() bool {
	return r.Network == "tcp" || r.Network == "tls" || r.Network == "unix"
}
