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
	"pm.example/scrape"
	"pm.example/ship"
)

// scrapeLabel is the label of a program that logs.scrape.system looks at.
const scrapeLabel = "scId"

// scrapeFlags are a program's keys of logs.scrape as the flags of pm scrape-logs.
func scrapeFlags(p *config.Program, spool string) *scrapeLogsOptions {
	s, d := &p.Logs.Scrape, ship.Defaults(ship.Receiver{})
	o := &scrapeLogsOptions{
		format: s.Format, invalid: s.Invalid, system: s.System, onFull: s.OnFull, rate: s.RateLimit, spool: spool,
		maxLine: byteSize(s.MaxLine), size: byteSize(s.SizeLimit), buffer: byteSize(s.Buffer), resend: byteSize(s.Resend), spoolSize: byteSize(s.SpoolSize),
		own:    scrape.System{ServiceID: p.Labels[scrapeLabel]},
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
func scrapeOf(p *config.Program, index int, spool string, tell func(string)) (scrapeOptions, error) {
	flags := scrapeFlags(p, spool)
	flags.own.InstanceID = config.InstanceName(p, index)
	return flags.silent(tell)
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
	if _, err := scrapeOf(p, 0, s.Spool, func(string) {}); err != nil {
		return fmt.Errorf("logs.scrape: %w", err)
	}
	return nil
}

// scraper ships what one instance prints. It follows the instance's output as a
// client of pm logs does, and writes down how far everything has arrived so long ago
// that the receiver has dealt with it: from there on the next worker goes on, so that
// lines come at least once, also if the receiver is killed along with this process.
type scraper struct {
	name     string
	pipeline *scrapePipeline
	sources  []logSource
	log      *output.Log    // to be guarded; nil: it may forget what was not shipped
	path     string         // where places are written down
	resumed  []output.Place // by source: all before had arrived from an earlier process
	linger   time.Duration
	slog     *slog.Logger
	fresh    chan struct{} // holds something when more was read

	mu     sync.Mutex     // guards all below
	read   []output.Place // by source: all before is in the pipeline, in whole lines
	missed int64          // bytes that were gone before they were read, and had not arrived
	marks  []scrapeMark   // of what is not known to be dealt with, oldest first
	wrote  time.Time      // when places were written down last

	// Only the goroutine that marks uses these.
	arrived  []output.Place // by source: all before has arrived
	digested []output.Place // by source: all before is dealt with
}

// scrapeMark says that everything up to some places has arrived as soon as so many
// lines have.
type scrapeMark struct {
	lines   uint64
	read    []output.Place
	arrived time.Time // when that was seen; zero: not yet
}

const (
	// markEvery is how often is looked how far lines have arrived.
	markEvery = 20 * time.Millisecond
	// writeEvery is how often places are written down, at most.
	writeEvery = time.Second
	// maxMarks bounds what is remembered; it is enough for what is to be digested.
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
		s.log.Guard(s.digested[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	shipped := make(chan error, 1)
	go func() { shipped <- s.pipeline.run(ctx) }() // ends with ctx, or after finish
	marking, stopMarking := context.WithCancel(ctx)
	var marker sync.WaitGroup
	marker.Go(func() { s.keepMarking(marking) }) // ends with stopMarking
	defer func() { stopMarking(); marker.Wait(); s.mark(true) }()

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
		s.missed += s.missing(source, line.Lost)
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

// keepMarking looks how far lines have arrived, as long as some have not.
func (s *scraper) keepMarking(ctx context.Context) {
	var next <-chan time.Time // nil: there is nothing to look for
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fresh:
			next = time.After(markEvery)
			continue
		case <-next:
		}
		if next = nil; s.mark(false) {
			next = time.After(markEvery)
		} else if s.undigested() {
			next = time.After(writeEvery)
		}
	}
}

// mark notes how far has been read, and deals with what of that has arrived. It
// reports whether some has not. At an orderly end nobody is expected to be killed:
// what has arrived then is taken as dealt with.
func (s *scraper) mark(end bool) (away bool) {
	m := scrapeMark{read: s.places()} // first the places: the lines then include all before
	m.lines, _ = s.pipeline.progress()
	s.note(m)
	_, safe := s.pipeline.progress()
	write, away := s.settle(safe, time.Now(), end)
	if s.log != nil {
		s.log.Guard(s.arrived[0])
	}
	if write {
		s.write()
	}
	return away
}

// note adds a mark, if there is anything new.
func (s *scraper) note(m scrapeMark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := len(s.marks); {
	case n > 0 && slices.Equal(s.marks[n-1].read, m.read) || n == 0 && slices.Equal(s.digested, m.read):
	case n < maxMarks:
		s.marks = append(s.marks, m)
	default:
		s.marks[n-1] = m
	}
}

// settle finds out up to where everything has arrived, and up to where everything is
// dealt with. It reports whether that is to be written down, and whether some lines
// have not arrived.
func (s *scraper) settle(safe uint64, now time.Time, end bool) (write, away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.marks {
		m := &s.marks[i]
		if away = m.lines > safe; away {
			break
		}
		if m.arrived.IsZero() {
			m.arrived, s.arrived = now, m.read
		}
	}
	for len(s.marks) > 0 && !s.marks[0].arrived.IsZero() && (end || now.Sub(s.marks[0].arrived) >= ship.Digest) {
		s.digested, s.marks = s.marks[0].read, s.marks[1:]
	}
	if write = end || now.Sub(s.wrote) >= writeEvery; write {
		s.wrote = now
	}
	return write, away
}

// undigested reports whether there is anything that may have to be shipped again.
func (s *scraper) undigested() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.marks) > 0
}

// write writes down up to where everything is dealt with, and has arrived. If it fails,
// as on a full disk, what was written down before stays true.
func (s *scraper) write() {
	fresh, text := s.path+".new", s.text(s.digested)+"\n"+s.text(s.arrived)+"\n"
	if err := os.WriteFile(fresh, []byte(text), 0o600); err == nil {
		_ = os.Rename(fresh, s.path)
	}
}

// readPlaces reads what write has written, by the sources' labels.
func readPlaces(path string) (digested, arrived map[string]output.Place, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil
	}
	first, second, _ := strings.Cut(string(text), "\n")
	digested, faulty := parsePlaces(first)
	arrived, faulty2 := parsePlaces(second)
	return digested, arrived, errors.Join(err, faulty, faulty2)
}

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
	s.read, s.resumed = make([]output.Place, len(s.sources)), make([]output.Place, len(s.sources))
	digested, arrived, err := readPlaces(s.path)
	for i, source := range s.sources {
		place, ok := digested[source.label()]
		if _, isFile := source.(fileSource); !ok && isFile {
			_, place, _, _ = source.tail(0, time.Time{}) // what cannot be read is followed from its beginning
		}
		s.read[i], s.resumed[i] = place, place
		if later := arrived[source.label()]; ok && later.Source == place.Source {
			s.resumed[i] = later
		}
	}
	s.digested, s.arrived = slices.Clone(s.read), slices.Clone(s.read)
	s.write()
	return err
}

// missing is how many bytes of a loss have not arrived from an earlier process. The
// caller holds s.mu.
func (s *scraper) missing(source int, lost int64) int64 {
	for stream, to := range s.resumed[source].Read {
		if from := s.read[source].Read[stream]; from < to {
			lost -= int64(to - from)
		}
	}
	return max(lost, 0)
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
