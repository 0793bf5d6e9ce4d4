package subcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/scrape"
	"pm.example/ship"
	"pm.example/socket"
)

// scrapeLogsOptions are the flags of pm scrape-logs.
type scrapeLogsOptions struct {
	format, invalid            string
	from, to                   cli.StringSlice
	keepOpen                   bool
	ignore, fields, renames    cli.StringSlice
	system                     bool
	maxLine                    byteSize
	rate                       int
	size                       byteSize
	buffer, resend, spoolSize  byteSize
	onFull, spool              string
	bufferLines                int           // only a variable sets it
	own                        scrape.System // what is known of a program beside the environment; only the daemon and pm exec set it
	linger, timeout, keepAlive time.Duration
	refresh                    time.Duration
	quiet, json                bool
}

func scrapeLogsCommand(e *env) *cli.Command {
	d := ship.Defaults(ship.Receiver{})
	o := scrapeLogsOptions{
		maxLine: 1 << 20, buffer: byteSize(d.Buffer), resend: byteSize(d.Resend), spoolSize: byteSize(d.SpoolSize),
		linger: 10 * time.Second, timeout: d.Timeout, keepAlive: d.KeepAlive, refresh: d.Refresh,
	}
	const (
		lines     = "what lines become"
		receivers = "receivers"
	)
	return &cli.Command{
		Name:  "scrape-logs",
		Usage: "turn log lines into JSON and ship them",
		Description: `Reads log lines, in logfmt or as JSON objects, makes the JSON of them that
Logstash takes, and sends it, a line each, to all receivers named with --to:

  -                    standard output (default)
  file:PATH            a file, to which is appended
  tcp://HOST:PORT      also tls:// (?ca=FILE&cert=FILE&key=FILE&name=NAME)
  unix:///PATH         a socket
  udp://HOST:PORT      also unixgram:///PATH: a datagram each line
  consul+tcp://SERVICE the instances that Consul knows, in turn (?tag=TAG&dc=DC);
                       also consul+tls, consul+udp. CONSUL_HTTP_ADDR and others
                       tell where Consul is

time and msg become @timestamp and message. A line is sent at once when the
input pauses. While a receiver is away, up to --buffer waits in memory; with
--spool, up to --spool-size more on disk, which also survives pm. What was not
acknowledged is sent again. At the end, counters are told on standard error.

The first TERM ends pm when the input pauses, INT when it ends; the second at
once. USR1 tells the counters.

ALLEGRO_EXECUTOR_SERVICELOG_* and PM_EXECUTOR_SERVICELOG_* variables are used
where a flag is not given: docs/scrape-logs.md lists them.

Examples:
  ./server 2>&1 | pm scrape-logs
  ./server | pm scrape-logs --to tcp://logs:5000 --field app=shop --ignore-key token
  pm scrape-logs --from app.fifo --to tls://logs:6514 --spool /var/spool/shop

Exit status: 0 all lines were delivered, dropped as the flags say, or are in the
spool; 1 lines are lost, or the input cannot be read; 2 usage; 6 permission
denied.`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "from", Destination: &o.from, Usage: "read `PATH`, a file or a FIFO, or - for standard input (default; repeatable)"},
			&cli.BoolFlag{Name: "keep-open", Destination: &o.keepOpen, Usage: "do not end when the last writer of a FIFO leaves"},
			&cli.StringSliceFlag{Name: "to", Destination: &o.to, Usage: "send to `URL` (repeatable: to each)"},
			&cli.StringFlag{Name: "format", Value: scrapeFormats[0], Destination: &o.format, Category: lines, Usage: "lines are `FORMAT`: logfmt, json, or auto, which looks at each"},
			&cli.StringFlag{Name: "invalid", Value: scrapeInvalids[0], Destination: &o.invalid, Category: lines, Usage: "`ACTION` on lines that are neither: wrap as a message, echo to standard output (error, if documents go there), or drop"},
			&cli.StringSliceFlag{Name: "ignore-key", Destination: &o.ignore, Category: lines, Usage: "leave out the top-level key `KEY` (repeatable, or a,b)"},
			&cli.StringSliceFlag{Name: "field", KeepSpace: true, Destination: &o.fields, Category: lines, Usage: "add the field `KEY=VALUE`, or KEY:=JSON (repeatable)"},
			&cli.StringSliceFlag{Name: "rename", Destination: &o.renames, Category: lines, Usage: "call the top-level key KEY something else: `KEY=NAME` (repeatable)"},
			&cli.BoolFlag{Name: "system", Destination: &o.system, Category: lines, Usage: "add srchost, region, zone, instance-id and scid, as far as they are known"},
			&cli.GenericFlag{Name: "max-line", Value: &o.maxLine, Category: lines, Usage: "cut lines longer than `SIZE`, which makes them invalid"},
			&cli.GenericFlag{Name: "size-limit", Value: &o.size, Category: lines, Usage: "drop documents longer than `SIZE` (default: none)"},
			&cli.IntFlag{Name: "rate-limit", Destination: &o.rate, DefaultText: "none", Category: lines, Usage: "drop what is more than `N` documents a second"},
			&cli.GenericFlag{Name: "buffer", Value: &o.buffer, Category: receivers, Usage: "keep up to `SIZE` in memory for each receiver"},
			&cli.StringFlag{Name: "on-full", Value: onFulls[0], Destination: &o.onFull, Category: receivers, Usage: "`ACTION` when nothing more can be kept: block, which stops reading, or drop"},
			&cli.StringFlag{Name: "spool", Destination: &o.spool, Category: receivers, Usage: "keep what cannot be sent in `DIR`, which is this pm's alone"},
			&cli.GenericFlag{Name: "spool-size", Value: &o.spoolSize, Category: receivers, Usage: "keep up to `SIZE` there"},
			&cli.GenericFlag{Name: "resend", Value: &o.resend, Category: receivers, Usage: "after a connection was reset, send the last `SIZE` again that were acknowledged"},
			&cli.DurationFlag{Name: "linger", Destination: &o.linger, Category: receivers, Usage: "at the end try for `TIME` to deliver the rest"},
			&cli.DurationFlag{Name: "connect-timeout", Destination: &o.timeout, Category: receivers, Usage: "give up an attempt to connect after `TIME`"},
			&cli.DurationFlag{Name: "keep-alive", Destination: &o.keepAlive, Category: receivers, Usage: "probe a silent connection every `TIME`"},
			&cli.DurationFlag{Name: "refresh", Destination: &o.refresh, Category: receivers, Usage: "ask Consul at most every `TIME`"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Destination: &o.quiet, Usage: "tell neither counters nor how receivers are"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "tell the counters as a JSON document"},
		},
		Action: withoutArgs(func(c *cli.Context) error {
			if err := o.fromEnvironment(e.getenv, c.IsSet); err != nil {
				return usageError(err)
			}
			return runScrapeLogs(c.Context, e, o)
		}),
	}
}

// The values of flags, in the order of the constants that they stand for.
var (
	scrapeFormats  = []string{"auto", "logfmt", "json"}
	scrapeInvalids = []string{"wrap", "echo", "drop"}
	onFulls        = []string{"block", "drop"}
)

// choice returns the place of a flag's value among those that it may have.
func choice[T ~int](flag, value string, values []string) (T, error) {
	n := slices.Index(values, value)
	if n < 0 {
		return 0, fmt.Errorf("--%s %q is not known (accepted: %s)", flag, value, strings.Join(values, ", "))
	}
	return T(n), nil
}

// runScrapeLogs ships until the input has ended and everything is delivered.
func runScrapeLogs(ctx context.Context, e *env, o scrapeLogsOptions) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1)
	defer signal.Stop(signals)
	stderr := &lockedWriter{w: e.stderr}
	options, err := o.pipeline(e, stderr)
	if err != nil {
		return usageError(err)
	}
	inputs, err := openScrapeInputs(e.stdin, orDefault(o.from.Value(), stdinName), o.keepOpen)
	if err != nil {
		return scrapeProblem(err)
	}
	defer inputs.close()
	p, err := newScrapePipeline(options)
	if err != nil {
		return scrapeProblem(err)
	}
	tellCounters := func() {
		if !o.quiet {
			p.counters().tell(stderr, o.json)
		}
	}
	err = (&scraping{inputs: inputs, pipeline: p, linger: o.linger, counters: tellCounters, signals: signals}).run(ctx)
	tellCounters()
	return scrapeProblem(err)
}

// scrapeProblem gives an error its exit code.
func scrapeProblem(err error) error {
	var status *socket.Problem
	switch {
	case err == nil, errors.As(err, &status), errors.Is(err, syscall.EPIPE):
		return err
	case errors.Is(err, os.ErrPermission):
		return &socket.Problem{Message: err.Error(), Code: socket.CodePermission}
	}
	p := &socket.Problem{Message: err.Error(), Code: socket.CodeFailed}
	if len(undelivered(err)) > 0 {
		p.Hint = "--linger waits longer, --spool DIR keeps them for the next time"
	}
	return p
}

// scraping is a pipeline at work, with what feeds it.
type scraping struct {
	inputs   *scrapeInputs
	pipeline *scrapePipeline
	linger   time.Duration
	counters func() // tells them
	signals  <-chan os.Signal
}

// run reads and ships until the end of both, or until it is told to end.
func (s *scraping) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	shipped, read := make(chan error, 1), make(chan error, 1)
	go func() { shipped <- s.pipeline.run(ctx) }() // ends with ctx, or after finish
	go func() {                                    // ends with the input or ctx; a read that cannot be interrupted with the process
		err := s.inputs.read(ctx, s.pipeline)
		s.pipeline.finish()
		read <- err
	}()
	return s.await(cancel, shipped, read)
}

// await waits for the end of shipping, and acts on what happens meanwhile.
func (s *scraping) await(cancel func(), shipped, read <-chan error) error {
	var readErr error
	var late <-chan time.Time
	stops := 0
	for {
		select {
		case err := <-shipped:
			return firstOf(readErr, err)
		case readErr = <-read:
			read, late = nil, time.After(s.linger)
		case <-late:
			cancel()
		case sig := <-s.signals:
			if sig == syscall.SIGUSR1 {
				go s.counters() // returns at once, or when a write no longer waits
				continue
			}
			switch stops++; {
			case stops > 1:
				cancel()
			case s.inputs.endless():
				s.pipeline.finish()
				late = time.After(s.linger)
			case sig == syscall.SIGTERM:
				s.inputs.stop()
				late = time.After(s.linger)
			}
		}
	}
}

// firstOf returns what is wrong: shipping comes before reading, which only
// fails then because of it.
func firstOf(read, shipped error) error {
	if shipped != nil || errors.Is(read, context.Canceled) {
		return shipped
	}
	return read
}

// pipeline turns the flags into a pipeline's options.
func (o *scrapeLogsOptions) pipeline(e *env, stderr io.Writer) (out scrapeOptions, err error) {
	if out.convert, err = o.convert(e.getenv); err != nil {
		return out, err
	}
	out.limits = ship.Limits{Rate: o.rate, Size: int(o.size)}
	onFull, err := choice[ship.OnFull]("on-full", o.onFull, onFulls)
	if err != nil {
		return out, err
	}
	consul, err := ship.ConsulFromEnv(e.getenv)
	if err != nil {
		return out, err
	}
	urls := orDefault(o.to.Value(), "-")
	for n, url := range urls {
		to, err := ship.ParseReceiver(url)
		if err != nil {
			return out, err
		}
		r := ship.Defaults(to)
		r.Stdout, r.OnFull, r.Consul = e.stdout, onFull, consul
		r.Buffer, r.Resend, r.SpoolSize = int(o.buffer), int(o.resend), int64(o.spoolSize)
		r.Timeout, r.KeepAlive, r.Refresh = o.timeout, o.keepAlive, o.refresh
		r.BufferLines = o.bufferLines
		r.Spool = spoolOf(o.spool, n, len(urls))
		if !o.quiet {
			r.Tell = func(message string) { tell(stderr, message) }
		}
		out.receivers = append(out.receivers, r)
	}
	out.convert.Echo = echoTo(e, stderr, urls)
	return out, nil
}

// spoolOf is the directory for one of several receivers.
func spoolOf(dir string, n, receivers int) string {
	if dir == "" || receivers == 1 {
		return dir
	}
	return filepath.Join(dir, strconv.Itoa(n+1))
}

// echoTo writes lines that are no logs to standard output, unless that is where
// documents go.
func echoTo(e *env, stderr io.Writer, urls []string) func([]byte) {
	w := e.stdout
	if slices.Contains(urls, "-") {
		w = stderr
	}
	return func(line []byte) { _, _ = w.Write(append(slices.Clip(line), '\n')) }
}

// convert turns the flags into a converter's options.
func (o *scrapeLogsOptions) convert(getenv func(string) string) (c scrape.Options, err error) {
	if c.Format, err = choice[scrape.Format]("format", o.format, scrapeFormats); err != nil {
		return c, err
	}
	if c.Invalid, err = choice[scrape.Invalid]("invalid", o.invalid, scrapeInvalids); err != nil {
		return c, err
	}
	c.IgnoreKeys, c.MaxLine = splitNames(o.ignore.Value()), int(o.maxLine)
	if o.system {
		c.Fields = systemFields(getenv, o.own)
	}
	for _, text := range o.fields.Value() {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" || key == ":" {
			return c, fmt.Errorf("--field %q is not of the form KEY=VALUE, or KEY:=JSON", text)
		}
		name, isJSON := strings.CutSuffix(key, ":")
		c.Fields = append(c.Fields, scrape.Field{Key: name, Value: value, JSON: isJSON})
	}
	c.Rename = map[string]string{}
	for _, text := range o.renames.Value() {
		key, name, ok := strings.Cut(text, "=")
		if !ok || key == "" || name == "" {
			return c, fmt.Errorf("--rename %q is not of the form KEY=NAME", text)
		}
		c.Rename[key] = name
	}
	return c, nil
}

// systemFields tell where lines come from, as far as that is known. The label scId of
// an app is in its environment under Marathon, and that of a program in own.
func systemFields(getenv func(string) string, own scrape.System) []scrape.Field {
	host, _ := os.Hostname()
	return scrape.System{
		Host:   orElse(getenv("MESOS_HOSTNAME"), orElse(getenv("CLOUD_HOSTNAME"), host)),
		Region: getenv("CLOUD_REGION"), Zone: getenv("CLOUD_AVAILABILITY_ZONE"),
		InstanceID: orElse(own.InstanceID, getenv("MESOS_EXECUTOR_ID")),
		ServiceID:  orElse(own.ServiceID, getenv("MARATHON_APP_LABEL_SCID")),
	}.Fields()
}

func orDefault(values []string, other string) []string {
	if len(values) > 0 {
		return values
	}
	return []string{other}
}

// lockedWriter lets several goroutines write whole messages.
type lockedWriter struct {
	mu sync.Mutex // held while writing
	w  io.Writer
}

// Write writes p whole.
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// byteSize is the value of a flag: a number of bytes, such as 64KiB or 1G.
type byteSize int64

// sizeUnits are the units of sizes: all are powers of 1024.
var sizeUnits = []struct {
	letter string
	bytes  int64
}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// maxSize keeps sizes within what any machine has.
const maxSize = 1 << 46

// Set reads the value that the user wrote.
func (b *byteSize) Set(text string) error {
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	factor := int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.letter); ok {
			number, factor = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > maxSize/factor {
		return errors.New("not a size (accepted: a number of bytes, or such as 64KiB, 8MiB, 1GiB)")
	}
	*b = byteSize(n * factor)
	return nil
}

// String returns the value in the largest unit that fits; none is "".
func (b *byteSize) String() string {
	if b == nil || *b == 0 {
		return ""
	}
	for _, u := range sizeUnits {
		if int64(*b)%u.bytes == 0 {
			return strconv.FormatInt(int64(*b)/u.bytes, 10) + u.letter + "iB"
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// countersDocument is the --json form of the counters.
type countersDocument struct {
	Schema    int                `json:"schema"`
	Received  int                `json:"received"` // lines read
	Converted int                `json:"converted"`
	Wrapped   int                `json:"wrapped"`
	Echoed    int                `json:"echoed"`
	Blank     int                `json:"blank"`
	Long      int                `json:"long"`
	Dropped   map[string]uint64  `json:"dropped"` // before shipping: invalid, rate, size
	Receivers []receiverDocument `json:"receivers"`
	// MissedBytes of a daemon's program were no longer kept when they were to be read.
	MissedBytes int64 `json:"missed_bytes,omitempty"`
}

type receiverDocument struct {
	To        string            `json:"to"`
	Sent      uint64            `json:"sent"`
	SentBytes uint64            `json:"sent_bytes"`
	Resent    uint64            `json:"resent"`
	Spooled   uint64            `json:"spooled"`
	Dropped   map[string]uint64 `json:"dropped"` // full, size, unsent, spool
	Connects  uint64            `json:"connects"`
	Failures  uint64            `json:"failures"`
	WriteTime float64           `json:"write_time_seconds"`
	// Problem is why the receiver cannot be reached now.
	Problem string `json:"problem,omitempty"`
}

func (c scrapeCounters) document() countersDocument {
	d := countersDocument{
		Schema: socket.Schema, Received: c.lines.Lines, Converted: c.lines.Converted, Wrapped: c.lines.Wrapped,
		Echoed: c.lines.Echoed, Blank: c.lines.Blank, Long: c.lines.Long,
		Dropped: map[string]uint64{"invalid": uint64(c.lines.Dropped), "rate": c.limited.Rate, "size": c.limited.Size},
	}
	for _, r := range c.receivers {
		d.Receivers = append(d.Receivers, receiverDocument{
			To: r.name, Sent: r.Sent, SentBytes: r.SentBytes, Resent: r.Resent, Spooled: r.Spooled,
			Dropped:  map[string]uint64{"full": r.Dropped.Full, "size": r.Dropped.Size, "unsent": r.Dropped.Unsent, "spool": r.Dropped.Spool},
			Connects: r.Connects, Failures: r.Failures, WriteTime: r.WriteTime.Seconds(), Problem: r.Problem,
		})
	}
	return d
}

// tell writes the counters as a message, or as a document. What is zero and
// need not be is left out of the message.
func (c scrapeCounters) tell(w io.Writer, asJSON bool) {
	d := c.document()
	if asJSON {
		_ = json.NewEncoder(w).Encode(d)
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "lines received=%d", d.Received)
	some(&b, map[string]uint64{"wrapped": uint64(d.Wrapped), "echoed": uint64(d.Echoed), "blank": uint64(d.Blank), "long": uint64(d.Long)}, "")
	some(&b, d.Dropped, "dropped_")
	for _, r := range d.Receivers {
		fmt.Fprintf(&b, "\nlines sent=%d bytes=%d", r.Sent, r.SentBytes)
		some(&b, map[string]uint64{"resent": r.Resent, "spooled": r.Spooled, "failures": r.Failures}, "")
		some(&b, r.Dropped, "dropped_")
		fmt.Fprintf(&b, " write_time=%s to=%q", time.Duration(r.WriteTime*float64(time.Second)).Round(time.Microsecond), r.To)
	}
	tell(w, b.String())
}

// some writes the counters that are not zero, in the order of their names.
func some(b *strings.Builder, counters map[string]uint64, prefix string) {
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if counters[name] > 0 {
			fmt.Fprintf(b, " %s%s=%d", prefix, name, counters[name])
		}
	}
}
