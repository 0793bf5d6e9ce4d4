package subcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"pm.example/config"
	"pm.example/output"
	"pm.example/ship"
)

// scrapeFlags are a program's keys of logs.scrape as the flags of pm scrape-logs.
func scrapeFlags(p *config.Program, spool string) *scrapeLogsOptions {
	s, d := &p.Logs.Scrape, ship.Defaults(ship.Receiver{})
	o := &scrapeLogsOptions{
		format: s.Format, invalid: s.Invalid, system: s.System, onFull: s.OnFull, rate: s.RateLimit, spool: spool,
		maxLine: byteSize(s.MaxLine), size: byteSize(s.SizeLimit), buffer: byteSize(s.Buffer), resend: byteSize(s.Resend), spoolSize: byteSize(s.SpoolSize),
		linger: s.Linger, timeout: d.Timeout, keepAlive: d.KeepAlive, refresh: d.Refresh,
	}
	o.to, o.ignore = *cli.NewStringSlice(s.To...), *cli.NewStringSlice(s.IgnoreKeys...)
	o.fields, o.renames = *cli.NewStringSlice(assignments(s.Fields)...), *cli.NewStringSlice(assignments(s.Rename)...)
	return o
}

// assignments lists the entries of a table as NAME=VALUE.
func assignments(table map[string]string) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		list = append(list, name+"="+table[name])
	}
	return list
}

// scrapeOf returns what the pipeline of an instance is made of. Everything that it
// has to say goes to tell.
func scrapeOf(p *config.Program, spool string, tell func(string)) (scrapeOptions, error) {
	return scrapeFlags(p, spool).silent(tell)
}

// silent is pipeline for one that writes to no stream of its own.
func (o *scrapeLogsOptions) silent(tell func(string)) (scrapeOptions, error) {
	out, err := o.pipeline(&env{getenv: os.Getenv, stdout: io.Discard}, io.Discard)
	for i := range out.receivers {
		out.receivers[i].Tell = tell
	}
	return out, err
}

// checkScrape reports what of logs.scrape makes no sense.
func checkScrape(p *config.Program) error {
	s := &p.Logs.Scrape
	if !s.On() {
		return nil
	}
	if slices.Contains(s.To, "-") {
		return errors.New("logs.scrape.to: \"-\" is where lines go as they are (accepted: URLs, see pm scrape-logs)")
	}
	if _, err := scrapeOf(p, s.Spool, func(string) {}); err != nil {
		return fmt.Errorf("logs.scrape: %w", err)
	}
	return nil
}

// scraper ships what one instance prints. It follows the instance's output as a
// client of pm logs does, and writes down how far everything is known to have
// arrived: from there on the next worker goes on, so that lines come at least once.
type scraper struct {
	name     string
	pipeline *scrapePipeline
	sources  []logSource
	log      *output.Log // to be guarded; nil: it may forget what was not shipped
	path     string      // where places are written down
	linger   time.Duration
	slog     *slog.Logger
	fresh    chan struct{} // holds something when more was read

	mu     sync.Mutex     // guards all below
	read   []output.Place // by source: all before is in the pipeline, in whole lines
	missed int64          // bytes that were gone before they were read
	marks  []scrapeMark   // that are not safe yet, oldest first
}

// scrapeMark says that everything up to some places is safe as soon as so many lines
// are.
type scrapeMark struct {
	lines uint64
	read  []output.Place
}

const (
	// markEvery is how often is looked how far lines have arrived.
	markEvery = 20 * time.Millisecond
	// maxMarks bounds what is remembered while nothing arrives.
	maxMarks = 1000
	// quietTime is how long nothing comes from what was read to its end, but for an
	// unfinished line.
	quietTime = 100 * time.Millisecond
)

// run ships until finish is closed and all is delivered, or ctx is done.
func (s *scraper) run(ctx context.Context, finish <-chan struct{}) error {
	if err := s.resume(); err != nil {
		s.slog.Warn("what was shipped before is not known, and may be shipped again", "instance", s.name, "problem", err)
	}
	if s.log != nil {
		s.guard(s.read)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shipped := make(chan error, 1)
	go func() { shipped <- s.pipeline.run(ctx) }() // ends with ctx, or after finish
	marking, stopMarking := context.WithCancel(ctx)
	var marker sync.WaitGroup
	marker.Go(func() { s.keepMarking(marking) }) // ends with stopMarking
	defer func() { stopMarking(); marker.Wait(); s.mark() }()

	reading, stopReading := context.WithCancel(ctx)
	read := make(chan error, 1)
	go func() { read <- s.follow(reading) }() // ends with stopReading, or with what is read
	select {
	case err := <-shipped:
		stopReading()
		<-read
		return err
	case <-finish:
		s.quiet(ctx)
		stopReading()
		<-read
	case <-read:
		stopReading()
	case <-ctx.Done():
		stopReading()
		<-read
		return <-shipped
	}
	s.pipeline.finish()
	defer time.AfterFunc(s.linger, cancel).Stop()
	return <-shipped
}

// follow reads all sources into the pipeline.
func (s *scraper) follow(ctx context.Context) error {
	faults := make([]error, len(s.sources))
	var wg sync.WaitGroup
	for i, source := range s.sources {
		streams := map[output.Stream]*scrapeStream{}
		for stream := output.Both; stream <= output.Stderr; stream++ {
			streams[stream] = s.pipeline.newStream()
		}
		wg.Go(func() { // ends with ctx, or with the source
			faults[i] = source.follow(ctx, s.read[i], func(line output.Line) error { return s.take(ctx, i, streams, line) })
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// take brings one line into the pipeline.
func (s *scraper) take(ctx context.Context, source int, streams map[output.Stream]*scrapeStream, line output.Line) error {
	if line.Lost != 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.missed += max(line.Lost, 0)
		return nil
	}
	text := line.Text
	if !line.Partial || line.Ended {
		text = append(slices.Clip(text), '\n')
	}
	if err := streams[line.Stream].write(ctx, text); err != nil {
		return err
	}
	for _, stream := range streams {
		if len(stream.rest) > 0 {
			return nil // a part of a line is safe with its rest
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read[source] = line.Place
	select {
	case s.fresh <- struct{}{}:
	default:
	}
	return nil
}

// quiet waits until what there is has been read: nothing more has come for a while.
func (s *scraper) quiet(ctx context.Context) {
	deadline := time.After(s.linger)
	for before := s.places(); ; {
		select {
		case <-ctx.Done():
			return
		case <-deadline:
			return
		case <-time.After(quietTime):
		}
		now := s.places()
		if slices.Equal(before, now) {
			return
		}
		before = now
	}
}

func (s *scraper) places() []output.Place {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.read)
}

// keepMarking writes down how far lines have arrived, as long as some have not.
func (s *scraper) keepMarking(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fresh:
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(markEvery):
				again = s.mark()
			}
		}
	}
}

// mark notes how far has been read, writes down how far of that is safe, and reports
// whether some is not.
func (s *scraper) mark() (unsafe bool) {
	m := scrapeMark{read: s.places()} // first the places: the lines then include all before
	m.lines, _ = s.pipeline.progress()
	s.mu.Lock()
	switch n := len(s.marks); {
	case n == 0 || n < maxMarks && !slices.Equal(s.marks[n-1].read, m.read):
		s.marks = append(s.marks, m)
	case n == maxMarks:
		s.marks[n-1] = m
	}
	s.mu.Unlock()
	_, safe := s.pipeline.progress()
	s.mu.Lock()
	var reached []output.Place
	for len(s.marks) > 0 && s.marks[0].lines <= safe {
		reached, s.marks = s.marks[0].read, s.marks[1:]
	}
	unsafe = len(s.marks) > 0
	s.mu.Unlock()
	if reached != nil {
		s.reach(reached)
	}
	return unsafe
}

// reach writes down that everything before some places is safe.
func (s *scraper) reach(read []output.Place) {
	fresh := s.path + ".new"
	err := os.WriteFile(fresh, []byte(s.text(read)), 0o600)
	if err == nil {
		err = os.Rename(fresh, s.path)
	}
	if err != nil {
		return // as on a full disk: what was written down before stays true
	}
	if s.log != nil {
		s.guard(read)
	}
}

// guard has the log keep what is not safe.
func (s *scraper) guard(read []output.Place) { s.log.Guard(read[0]) }

func (s *scraper) text(read []output.Place) string {
	var parts []string
	for i, source := range s.sources {
		parts = append(parts, source.label()+"="+read[i].String())
	}
	return strings.Join(parts, " ")
}

// resume finds out how far an earlier process has come. What is in a file of which
// nothing is known was there before anybody wanted it to be shipped.
func (s *scraper) resume() error {
	s.read = make([]output.Place, len(s.sources))
	text, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	known, faulty := parsePlaces(string(text))
	for i, source := range s.sources {
		place, ok := known[source.label()]
		if _, isFile := source.(fileSource); !ok && isFile {
			_, place, _, _ = source.tail(0, time.Time{}) // what cannot be read is followed from its beginning
		}
		s.read[i] = place
	}
	s.reach(s.read)
	return errors.Join(err, faulty)
}

// counters tell what has become of the lines, in this process.
func (s *scraper) counters() countersDocument {
	d := s.pipeline.counters().document()
	s.mu.Lock()
	defer s.mu.Unlock()
	d.MissedBytes = s.missed
	return d
}

// placeFile is where the scraper of an instance writes its places down.
func (o *outputs) placeFile(key outputKey) string { return filepath.Join(o.dir, key.file()+".scraped") }
