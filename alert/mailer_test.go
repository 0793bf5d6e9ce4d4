package alert

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("server down")

// office is a mailer at work in a synctest bubble, with a server that only
// writes down what it gets.
type office struct {
	t      *testing.T
	mailer *Mailer
	start  time.Time
	log    bytes.Buffer // read it after expect
	cancel context.CancelFunc
	ended  chan error

	mu     sync.Mutex // guards all below
	mails  []string   // when, and the subject
	bodies []string
	during func(context.Context) error // called while a mail is sent
}

func open(t *testing.T, opts Options) *office {
	opts.To, opts.Server, opts.Host = []string{"ops@example.org"}, "mail.example.org", "box"
	o := &office{t: t, start: time.Now(), ended: make(chan error, 1)}
	log := slog.New(slog.NewTextHandler(&o.log, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	o.mailer = newMailer(opts.withDefaults(), log, o.send)
	ctx, cancel := context.WithCancel(t.Context())
	o.cancel = cancel
	go func() { o.ended <- o.mailer.Run(ctx) }() // ends when cancel is called
	return o
}

func (o *office) send(ctx context.Context, m message) error {
	o.mu.Lock()
	during := o.during
	o.mu.Unlock()
	if during != nil {
		if err := during(ctx); err != nil {
			return err
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mails = append(o.mails, fmt.Sprintf("%v %s", time.Since(o.start), m.subject))
	o.bodies = append(o.bodies, m.body)
	return nil
}

// meanwhile sets what happens while a mail is sent.
func (o *office) meanwhile(f func(context.Context) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.during = f
}

func (o *office) tell(kind string, n int) {
	for range n {
		o.mailer.Tell(Event{Time: time.Now(), Type: kind, Instance: "web", Message: "exit 1"})
	}
}

// expect waits, and compares the mails since the last call.
func (o *office) expect(wait time.Duration, want ...string) {
	o.t.Helper()
	time.Sleep(wait)
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.mails, want) {
		o.t.Errorf("at %v: got %q, want %q", time.Since(o.start), o.mails, want)
	}
	o.mails = nil
}

func (o *office) close() error {
	o.cancel()
	return <-o.ended
}

// Other options are in force at once, also for what waits.
func TestOtherOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{MaxPerHour: 3, Interval: time.Second})
		others := o.mailer.opts
		o.meanwhile(func(context.Context) error { return errDown })
		o.tell("fatal", 1)
		o.expect(time.Hour) // the waits have grown long
		o.meanwhile(nil)
		o.start = time.Now()
		o.mailer.take(others, o.send)
		o.expect(0, "0s pm on box: web FATAL")

		others.MaxPerHour, others.Events = 1, []string{"exited"}
		o.mailer.take(others, o.send)
		o.tell("fatal", 1)
		o.tell("exited", 1)
		o.expect(59 * time.Minute)
		others.To = nil
		o.mailer.take(others, o.send)
		o.tell("exited", 1)
		o.expect(24 * time.Hour)
		if err := o.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		o.expect(time.Hour)
		o.start = time.Now()
		o.tell("backoff", 1)
		o.expect(999 * time.Millisecond)
		o.tell("fatal", 1)
		o.expect(time.Millisecond, "1s pm on box: web FATAL (2 events)")
		o.tell("fatal", 1)
		o.expect(20 * time.Second)
		o.tell("FATAL", 1)
		o.expect(10*time.Second, "31s pm on box: web FATAL (2 events)")
		o.expect(time.Minute)
		o.tell("fatal", 1)
		o.expect(time.Second, "1m32s pm on box: web FATAL")
		if err := o.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestTellsOnlyWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{Events: []string{"exited"}})
		o.tell("fatal", 1)
		o.mailer.Tell(Event{Type: "exited", Instance: "job", Expected: true})
		o.expect(time.Hour)
		o.tell("exited", 1)
		o.expect(time.Second, "1h0m1s pm on box: web EXITED")
		o.close()
	})
}

func TestMailsAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{Interval: time.Minute, MaxPerHour: 3})
		var want []string
		for i := range 3 {
			o.tell("fatal", 1)
			want = append(want, fmt.Sprintf("%v pm on box: web FATAL", time.Second+time.Duration(i)*2*time.Minute))
			time.Sleep(2 * time.Minute)
		}
		o.expect(0, want...)
		o.tell("fatal", 12)
		o.expect(time.Hour-6*time.Minute+time.Second, "1h0m1s pm on box: web FATAL (12 events)")
		for _, text := range []string{"Held back by the limit of 3 mails an hour.\n", "   12  web FATAL\n"} {
			if body := o.bodies[3]; !strings.Contains(body, text) {
				t.Errorf("no %q in %q", text, body)
			}
		}
		o.tell("fatal", 1)
		o.expect(2*time.Minute, "1h2m1s pm on box: web FATAL")
		o.close()
	})
}

func TestOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		o.tell("fatal", maxQueue+7)
		o.expect(time.Second, "1s pm on box: web FATAL (1007 events)")
		if !strings.Contains(o.bodies[0], "\n7 more events came while 1000 were waiting to be sent, and were not kept.\n") {
			t.Errorf("the mail does not tell of the overflow")
		}
		o.tell("fatal", 1)
		o.expect(time.Minute, "31s pm on box: web FATAL")
		o.close()
	})
}

func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		var attempts []string
		down := func(context.Context) error {
			attempts = append(attempts, time.Since(o.start).String())
			return errDown
		}
		o.meanwhile(down)
		o.tell("fatal", 1)
		o.expect(40 * time.Minute)
		o.tell("fatal", 1)
		want := []string{"1s", "6s", "16s", "36s", "1m16s", "2m36s", "5m16s", "10m36s", "20m36s", "30m36s"}
		if !slices.Equal(attempts, want) {
			t.Errorf("attempts at %q, want %q", attempts, want)
		}
		o.meanwhile(nil)
		o.expect(10*time.Minute, "40m36s pm on box: web FATAL (2 events)")
		o.meanwhile(down)
		o.tell("fatal", 1)
		o.expect(time.Hour)
		const wantLog = `level=ERROR msg="cannot send mail; trying again with growing waits" server=mail.example.org:587 events=1 error="server down"
level=INFO msg="mail goes out again" server=mail.example.org:587 events=2 failures=10
level=ERROR msg="cannot send mail; trying again with growing waits" server=mail.example.org:587 events=1 error="server down"
`
		if got := o.log.String(); got != wantLog {
			t.Errorf("logged %s", got)
		}
		if err := o.close(); !errors.Is(err, errDown) || !strings.Contains(err.Error(), "the last 1 events") {
			t.Errorf("the end: %v", err)
		}
	})
}

func TestEventsWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		o.meanwhile(func(context.Context) error {
			o.meanwhile(nil)
			o.tell("backoff", 2)
			return nil
		})
		o.tell("fatal", 1)
		o.expect(time.Second, "1s pm on box: web FATAL")
		o.expect(time.Minute, "31s pm on box: web BACKOFF (2 events)")
		o.close()
	})
}

func TestSendsTheRestAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		o.tell("fatal", 1)
		o.expect(time.Second, "1s pm on box: web FATAL")
		o.tell("fatal", 3)
		if err := o.close(); err != nil {
			t.Error(err)
		}
		o.expect(0, "1s pm on box: web FATAL (3 events)")
	})
}

// hang is a server that never answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestEndIsBounded(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("sending %t", busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := open(t, Options{})
				o.meanwhile(hang)
				o.tell("fatal", 1)
				if busy {
					o.expect(2 * time.Second)
				}
				before := time.Now()
				if err := o.close(); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(before); d != lastWords {
					t.Errorf("the end took %v", d)
				}
			})
		})
	}
}

func TestSendingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, Options{})
		o.meanwhile(hang)
		o.tell("fatal", 1)
		o.expect(2 * time.Second)
		o.meanwhile(nil)
		o.expect(sendTimeout+firstRetry, "36s pm on box: web FATAL")
		o.close()
	})
}

func TestReport(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := report{
		host: "box\r\nBcc: all@example.org",
		events: []Event{
			{at, "backoff", "web:0", "web", "exited too quickly (exit 1)", false},
			{at, "fatal\nX: y", "gr\u00fc\u00df\u2028e", "", "line one\r\n.\r\nline two \xff\x00", false},
			{at, "fatal", "", "db", "", false},
		},
	}
	got := r.message()
	want := message{
		subject: "pm on box  Bcc: all@example.org: db FATAL (3 events)",
		body: `2026-01-02T03:04:05Z  web:0 BACKOFF  exited too quickly (exit 1)
2026-01-02T03:04:05Z  grüß e FATAL X: Y  line one  .  line two �
2026-01-02T03:04:05Z  db FATAL

-- 
pm on box  Bcc: all@example.org
`,
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOneLineIsBounded(t *testing.T) {
	if got, want := oneLine(strings.Repeat("ä", 50), 10), strings.Repeat("ä", 9)+"…"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzReport(f *testing.F) {
	f.Add("web", "fatal", "a\r\nb", "box")
	f.Fuzz(func(t *testing.T, instance, kind, text, host string) {
		m := report{host: host, events: []Event{{Type: kind, Instance: instance, Message: text}}}.message()
		if strings.ContainsAny(m.subject, "\r\n\x00") {
			t.Errorf("subject %q", m.subject)
		}
		if n := strings.Count(m.body, "\n"); n != 4 || strings.Contains(m.body, "\r") {
			t.Errorf("body %q", m.body)
		}
	})
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	file := func(name, data string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := file("secret", "s3cret\n", 0o600)
	open := file("open", "s3cret\n", 0o604)
	empty := file("empty", "\n", 0o600)
	good := func(change func(*Options)) Options {
		o := Options{To: []string{"Ops <ops@example.org>"}, Server: "mail.example.org:25", Host: "box"}
		change(&o)
		return o
	}
	tests := []struct {
		name   string
		change func(*Options)
		want   []string // in the error; none: no error
	}{
		{"least", func(*Options) {}, nil},
		{"all", func(o *Options) {
			o.From, o.TLS, o.Username, o.PasswordFile = "pm@example.org", "TLS", "pm", secret
		}, nil},
		{"nobody is told, whatever else is wrong", func(o *Options) { o.To, o.Server = nil, "" }, nil},
		{"all faults at once", func(o *Options) {
			o.To, o.From, o.Server, o.TLS, o.Interval, o.MaxPerHour = []string{"x y"}, "@", "", "ssl", -1, -1
		}, []string{`to: "x y"`, `from: "@"`, `server: ""`, `tls: "ssl" is unknown`, "interval: -1ns", "max_per_hour: -1"}},
		{"recipient with a header", func(o *Options) { o.To = []string{"a@example.org\r\nBcc: b@example.org"} }, []string{"to: "}},
		{"port", func(o *Options) { o.Server = "mail.example.org:70000" }, []string{"the port is not a number"}},
		{"no password", func(o *Options) { o.Username = "pm" }, []string{"go together"}},
		{"no user", func(o *Options) { o.PasswordFile = secret }, []string{"go together"}},
		{"missing password", func(o *Options) { o.Username, o.PasswordFile = "pm", dir+"/none" }, []string{"password_file: open", "no such file"}},
		{"open password", func(o *Options) { o.Username, o.PasswordFile = "pm", open }, []string{"mode 0604", "chmod 600 " + open}},
		{"empty password", func(o *Options) { o.Username, o.PasswordFile = "pm", empty }, []string{"holds no password"}},
		{"directory for a password", func(o *Options) { o.Username, o.PasswordFile = "pm", dir }, []string{"not a regular file"}},
		{"password in the clear", func(o *Options) { o.TLS, o.Username, o.PasswordFile = "none", "pm", secret }, []string{"unencrypted"}},
		{"password to this machine", func(o *Options) {
			o.TLS, o.Server, o.Username, o.PasswordFile = "none", "localhost", "pm", secret
		}, nil},
		{"certificates", func(o *Options) { o.CAFile = secret }, []string{"ca_file", "no certificate"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(good(test.change), nil)
			if len(test.want) == 0 && err != nil || len(test.want) > 0 && err == nil {
				t.Fatalf("got error %v", err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in %q", want, err)
				}
			}
		})
	}
}

func TestDefaultPorts(t *testing.T) {
	for _, test := range []struct{ tls, server, want string }{
		{"", "mail.example.org", "mail.example.org:587"},
		{"tls", "mail.example.org", "mail.example.org:465"},
		{"none", "::1", "[::1]:25"},
		{"none", "[::1]", "[::1]:25"},
		{"tls", "[::1]:99", "[::1]:99"},
	} {
		if got := (Options{TLS: test.tls, Server: test.server}).withDefaults().Server; got != test.want {
			t.Errorf("%q with %q: got %q, want %q", test.server, test.tls, got, test.want)
		}
	}
}

func TestWarnsOfAGroupReadablePassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	opts := Options{To: []string{"ops@example.org"}, Server: "mail.example.org", Username: "pm", PasswordFile: path}
	if _, err := New(opts, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, "mode=0640") || strings.Contains(got, "s3cret") {
		t.Errorf("logged %q", got)
	}
}
