package alert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/wneessen/go-mail"
)

// logins are the ways to log in, the best first.
var logins = []mail.SMTPAuthType{
	mail.SMTPAuthSCRAMSHA256PLUS, mail.SMTPAuthSCRAMSHA1PLUS,
	mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1,
	mail.SMTPAuthPlain, mail.SMTPAuthLogin,
}

// loginsUnbound are those that work without TLS: what -PLUS binds to is not
// there.
var loginsUnbound = logins[2:]

// sender sends mails through the server of the options.
type sender struct {
	opts    Options
	log     *slog.Logger
	refused map[string]bool // recipients that the server refused and we logged
}

// send sends one mail to all recipients. If the server refuses one of them,
// the others still get it.
func (s *sender) send(ctx context.Context, m message) error {
	err := s.sendTo(ctx, m, s.opts.To...)
	var fault *mail.SendError
	if len(s.opts.To) < 2 || !errors.As(err, &fault) || fault.Reason != mail.ErrSMTPRcptTo {
		return err
	}
	return s.sendEach(ctx, m)
}

// sendEach sends one mail to each recipient, and fails if nobody got it.
func (s *sender) sendEach(ctx context.Context, m message) error {
	var faults []error
	for _, to := range s.opts.To {
		err := s.sendTo(ctx, m, to)
		if err == nil {
			delete(s.refused, to)
			continue
		}
		faults = append(faults, fmt.Errorf("%s: %w", to, err))
		if s.refused == nil {
			s.refused = map[string]bool{}
		}
		if !s.refused[to] {
			s.refused[to] = true
			s.log.Warn("the mail server refused a recipient; the others are told", "to", to, "error", err)
		}
	}
	if len(faults) < len(s.opts.To) {
		return nil
	}
	return errors.Join(faults...)
}

// sendTo sends one mail over a connection of its own.
func (s *sender) sendTo(ctx context.Context, m message, to ...string) error {
	msg, err := s.compose(m, to)
	if err != nil {
		return err
	}
	d := &dialer{ctx: ctx}
	// The library forgets the connection when a login fails, and minds the
	// context only while it dials.
	defer d.close()
	client, err := s.client(d)
	if err != nil {
		return err
	}
	err = client.DialAndSendWithContext(ctx, msg)
	if msg.IsDelivered() {
		return nil // what failed was the farewell
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s did not take the mail in time: %w", s.opts.Server, err)
	}
	return err
}

// compose writes the mail with its headers.
func (s *sender) compose(m message, to []string) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(s.opts.From); err != nil {
		return nil, fmt.Errorf("cannot write a mail from %q: %w", s.opts.From, err)
	}
	if err := msg.To(to...); err != nil {
		return nil, fmt.Errorf("cannot write a mail to %q: %w", to, err)
	}
	msg.Subject(m.subject)
	// RFC 3834: no holiday notices in return.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, m.body)
	return msg, nil
}

// client returns a client for one mail.
func (s *sender) client(d *dialer) (*mail.Client, error) {
	host, port, err := net.SplitHostPort(s.opts.Server)
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	config, err := s.tlsConfig(host)
	if err != nil {
		return nil, err
	}
	options := []mail.Option{mail.WithPort(n), mail.WithTimeout(sendTimeout), mail.WithTLSConfig(config), mail.WithDialContextFunc(d.dial)}
	switch s.opts.TLS {
	case tlsNone:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case tlsImplicit:
		d.config = config
		options = append(options, mail.WithSSL())
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if options, err = s.login(options); err != nil {
		return nil, err
	}
	return mail.NewClient(host, options...)
}

// login adds what is needed to log in, if that is asked for.
func (s *sender) login(options []mail.Option) ([]mail.Option, error) {
	if s.opts.Username == "" {
		return options, nil
	}
	password, _, err := readPassword(s.opts.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the mail server's password: %w", err)
	}
	ways := logins
	if s.opts.TLS == tlsNone {
		ways = loginsUnbound
	}
	return append(options, mail.WithUsername(s.opts.Username), mail.WithPassword(password), mail.WithOpportunisticSMTPAuth(ways...)), nil
}

func (s *sender) tlsConfig(host string) (*tls.Config, error) {
	config := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if s.opts.CAFile == "" {
		return config, nil
	}
	cas, err := readCAs(s.opts.CAFile)
	config.RootCAs = cas
	return config, err
}

// dialer makes one connection that ends with its context.
type dialer struct {
	ctx    context.Context // of the whole sending, not only of the dialling
	config *tls.Config     // nil: no TLS from the first byte
	conn   net.Conn
	stop   func() bool
}

// dial connects. The context given here ends when the library has dialled and
// logged in.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.conn = conn
	d.stop = context.AfterFunc(d.ctx, func() { conn.Close() })
	if d.config == nil {
		return conn, nil
	}
	secure := tls.Client(conn, d.config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

// close ends the connection, if there is one.
func (d *dialer) close() {
	if d.conn != nil {
		d.stop()
		d.conn.Close()
	}
}
