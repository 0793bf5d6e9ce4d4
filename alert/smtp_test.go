package alert

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// python is Debian's own: its aiosmtpd is not in other Pythons' path.
const python = "/usr/bin/python3"

// serverScript serves SMTP into a Maildir, on a port of the kernel's choice
// that it prints, until its standard input ends.
const serverScript = `
import asyncio, json, ssl, sys
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import SMTP, AuthResult

o = json.loads(sys.argv[1])

class Handler(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in o.get("refuse", []):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

def login(server, session, envelope, mechanism, data):
    good = data.login == o["user"].encode() and data.password == o["password"].encode()
    print("login", mechanism, flush=True)
    return AuthResult(success=good, handled=good)

async def main():
    context = None
    if o["tls"] != "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(o["cert"], o["key"])
    options = dict(hostname="test.example.org", enable_SMTPUTF8=True)
    if o["tls"] == "starttls":
        options.update(tls_context=context, require_starttls=True)
    if "user" in o:
        options.update(authenticator=login, auth_required=True, auth_require_tls=o["tls"] == "starttls",
                       auth_exclude_mechanism=o.get("exclude", []))
    handler = Handler(o["dir"])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(handler, **options), "127.0.0.1", 0,
                                      ssl=context if o["tls"] == "tls" else None)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, lambda: sys.stdin.buffer.raw.read(1) or ended.set())
    await ended.wait()

asyncio.run(main())
`

// postOffice is an SMTP server with its mailbox.
type postOffice struct {
	t       *testing.T
	dir     string
	address string

	mu  sync.Mutex // guards log
	log []string   // what it printed: "login PLAIN"
}

// serve starts a server with the options of serverScript.
func serve(t *testing.T, options map[string]any) *postOffice {
	t.Helper()
	p := &postOffice{t: t, dir: filepath.Join(t.TempDir(), "mail")}
	options["dir"] = p.dir
	arg, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", serverScript, string(arg))
	var faults bytes.Buffer
	cmd.Stderr = &faults
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: these tests need Debian's package python3-aiosmtpd", err)
	}
	lines := bufio.NewScanner(stdout)
	if !lines.Scan() {
		stdin.Close()
		_ = cmd.Wait() // what it says is in faults
		t.Fatalf("the SMTP server did not start; these tests need Debian's package python3-aiosmtpd\n%s", faults.String())
	}
	p.address = "127.0.0.1:" + strings.TrimPrefix(lines.Text(), "port ")
	read := make(chan struct{})
	go func() { // ends with the server, when its standard input is closed
		defer close(read)
		for lines.Scan() {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		stdin.Close()
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("the SMTP server: %v\n%s", err, faults.String())
		}
	})
	return p
}

// logins returns the ways in which clients logged in, or tried to.
func (p *postOffice) logins() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// letter is a mail that the server took.
type letter struct {
	header netmail.Header
	body   string
}

func (p *postOffice) letters() (all []letter) {
	p.t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.dir, "new", "*"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			p.t.Fatal(err)
		}
		defer f.Close()
		m, err := netmail.ReadMessage(f)
		if err != nil {
			p.t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, letter{m.Header, strings.ReplaceAll(string(body), "\r\n", "\n")})
	}
	return all
}

// certificate writes a certificate for the given names, signed by itself, and
// returns the paths of it and its key.
func certificate(t *testing.T, names ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IsCA:         true, BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", keyDER)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func password(t *testing.T, word string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// post sends one event in the way Run does at its end, and returns its error.
func post(t *testing.T, opts Options) error {
	t.Helper()
	opts.Host = "box"
	if opts.To == nil {
		opts.To = []string{"ops@example.org"}
	}
	m, err := New(opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Tell(Event{Time: time.Now(), Type: "fatal", Instance: "grüße", Message: "exit 1"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return m.Run(ctx)
}

// wantMail fails unless exactly one proper mail has come.
func (p *postOffice) wantMail(err error) letter {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
	letters := p.letters()
	if len(letters) != 1 {
		p.t.Fatalf("%d mails came", len(letters))
	}
	l := letters[0]
	subject, err := new(mime.WordDecoder).DecodeHeader(l.header.Get("Subject"))
	if want := "pm on box: grüße FATAL"; subject != want || err != nil {
		p.t.Errorf("subject %q, want %q; %v", subject, want, err)
	}
	if !strings.Contains(l.body, "grüße FATAL  exit 1\n") {
		p.t.Errorf("body %q", l.body)
	}
	return l
}

func TestPlainSMTP(t *testing.T) {
	p := serve(t, map[string]any{"tls": "none"})
	l := p.wantMail(post(t, Options{
		Server: p.address, TLS: "none", From: "pm <pm@example.org>", To: []string{"ops@example.org", "boss@example.org"},
	}))
	want := map[string]string{
		"From":           `"pm" <pm@example.org>`,
		"X-Mailfrom":     "pm@example.org",
		"X-Rcptto":       "ops@example.org, boss@example.org",
		"Auto-Submitted": "auto-generated",
		"Content-Type":   "text/plain; charset=UTF-8",
	}
	for name, value := range want {
		if got := l.header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if l.header.Get("Message-ID") == "" || l.header.Get("Date") == "" {
		t.Errorf("no Message-ID or Date in %v", l.header)
	}
}

func TestEncrypted(t *testing.T) {
	cert, key := certificate(t, "127.0.0.1")
	for _, kind := range []string{"starttls", "tls"} {
		t.Run(kind, func(t *testing.T) {
			p := serve(t, map[string]any{"tls": kind, "cert": cert, "key": key})
			p.wantMail(post(t, Options{Server: p.address, TLS: kind, CAFile: cert}))
		})
	}
}

func TestWrongCertificate(t *testing.T) {
	named, key := certificate(t, "mail.example.org")
	other, _ := certificate(t, "127.0.0.1")
	for _, kind := range []string{"starttls", "tls"} {
		p := serve(t, map[string]any{"tls": kind, "cert": named, "key": key})
		for name, ca := range map[string]string{"unknown authority": other, "other name": named, "system's": ""} {
			t.Run(kind+" "+name, func(t *testing.T) {
				err := post(t, Options{Server: p.address, TLS: kind, CAFile: ca})
				if err == nil || !strings.Contains(err.Error(), "x509") {
					t.Errorf("got error %v", err)
				}
			})
		}
		if n := len(p.letters()); n != 0 {
			t.Errorf("%s: %d mails came", kind, n)
		}
	}
}

// TestNeverFallsBackToPlain has a server without STARTTLS, or a man in the
// middle who hides it.
func TestNeverFallsBackToPlain(t *testing.T) {
	p := serve(t, map[string]any{"tls": "none", "user": "pm", "password": "s3cret"})
	err := post(t, Options{Server: p.address, TLS: "starttls", Username: "pm", PasswordFile: password(t, "s3cret")})
	if err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("got error %v", err)
	}
	if n := len(p.letters()); n != 0 || len(p.logins()) != 0 {
		t.Errorf("%d mails and logins %q came", n, p.logins())
	}
}

func TestLogin(t *testing.T) {
	cert, key := certificate(t, "127.0.0.1")
	for _, test := range []struct{ tls, exclude, want string }{
		{"starttls", "", "login PLAIN"},
		{"starttls", "PLAIN", "login LOGIN"},
		{"tls", "", "login PLAIN"},
		{"tls", "PLAIN", "login LOGIN"},
		{"none", "", "login PLAIN"}, // to this machine
		{"none", "PLAIN", "login LOGIN"},
	} {
		t.Run(test.tls+" but "+test.exclude, func(t *testing.T) {
			p := serve(t, map[string]any{
				"tls": test.tls, "cert": cert, "key": key,
				"user": "pm", "password": "s3 crét", "exclude": []string{test.exclude},
			})
			p.wantMail(post(t, Options{
				Server: p.address, TLS: test.tls, CAFile: cert, Username: "pm", PasswordFile: password(t, "s3 crét"),
			}))
			if got := p.logins(); !slices.Equal(got, []string{test.want}) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWrongPassword(t *testing.T) {
	cert, key := certificate(t, "127.0.0.1")
	p := serve(t, map[string]any{"tls": "starttls", "cert": cert, "key": key, "user": "pm", "password": "s3cret"})
	err := post(t, Options{Server: p.address, CAFile: cert, Username: "pm", PasswordFile: password(t, "wr0ng")})
	if err == nil || !strings.Contains(err.Error(), "535") || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("got error %v", err)
	}
	if n := len(p.letters()); n != 0 {
		t.Errorf("%d mails came", n)
	}
}

// TestPasswordIsReadWhenSending changes the password, and then opens its file
// to everybody.
func TestPasswordIsReadWhenSending(t *testing.T) {
	p := serve(t, map[string]any{"tls": "none", "user": "pm", "password": "s3cret"})
	file := password(t, "old")
	opts := Options{Server: p.address, TLS: "none", Host: "box", To: []string{"ops@example.org"}, Username: "pm", PasswordFile: file}
	m, err := New(opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.send(t.Context(), message{"subject", "body"}); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.send(t.Context(), message{"subject", "body"}); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Errorf("got error %v", err)
	}
	if n := len(p.letters()); n != 1 {
		t.Errorf("%d mails came", n)
	}
}

func TestRefusedRecipient(t *testing.T) {
	p := serve(t, map[string]any{"tls": "none", "refuse": []string{"gone@example.org"}})
	opts := Options{Server: p.address, TLS: "none", Host: "box", To: []string{"gone@example.org", "ops@example.org"}}
	var log bytes.Buffer
	m, err := New(opts, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.send(t.Context(), message{"subject", "body"}); err != nil {
			t.Error(err)
		}
	}
	letters := p.letters()
	if len(letters) != 2 || letters[0].header.Get("X-Rcptto") != "ops@example.org" {
		t.Errorf("got %v", letters)
	}
	if got := log.String(); strings.Count(got, "to=gone@example.org") != 1 {
		t.Errorf("logged %s", got)
	}
	if err := post(t, Options{Server: p.address, TLS: "none", To: []string{"gone@example.org"}}); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("got error %v", err)
	}
}

// TestDeadServer sends to a port on which nothing listens.
func TestDeadServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	err = post(t, Options{Server: l.Addr().String()})
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got error %v", err)
	}
}

// TestHangingServer sends to servers that accept and then say nothing, or
// nothing more: the sending ends with its context, telling stays quick, and the
// connection is closed.
func TestHangingServer(t *testing.T) {
	for kind, greetings := range map[string][]string{
		"tls":      {""},
		"starttls": {"", "220 hello\r\n", "220 hello\r\n250-hello\r\n", "220 hello\r\n250-hello\r\n250 STARTTLS\r\n220 go on\r\n"},
	} {
		for _, greeting := range greetings {
			t.Run(kind+" "+strings.TrimSpace(greeting), func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				accepted, closed := make(chan struct{}), make(chan struct{})
				go func() { // ends when the mailer closes its connection
					defer close(closed)
					conn, err := l.Accept()
					if err != nil {
						return
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, greeting)
					close(accepted)
					_, _ = io.Copy(io.Discard, conn)
				}()
				m, err := New(Options{Server: l.Addr().String(), TLS: kind, To: []string{"ops@example.org"}}, nil)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				sent := make(chan error)
				go func() { sent <- m.send(ctx, message{"subject", "body"}) }() // ends with ctx
				<-accepted
				start := time.Now()
				for range 2 * maxQueue {
					m.Tell(Event{Type: "fatal"})
				}
				if d := time.Since(start); d > 100*time.Millisecond {
					t.Errorf("telling 2000 events took %v", d)
				}
				cancel()
				if err := <-sent; err == nil || !strings.Contains(err.Error(), "in time") {
					t.Errorf("got error %v", err)
				}
				<-closed
			})
		}
	}
}
