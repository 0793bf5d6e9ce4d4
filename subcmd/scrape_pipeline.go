package subcmd

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"pm.example/scrape"
	"pm.example/ship"
)

// scrapeOptions say what a pipeline does with lines, and where they go.
type scrapeOptions struct {
	convert   scrape.Options
	limits    ship.Limits
	receivers []ship.Options
}

// scrapePipeline is the way of log lines from a program's output to receivers:
// they are converted, held to the limits, and shipped to each receiver. The
// streams of a program have a pipe end each: see newStream.
type scrapePipeline struct {
	shippers []*ship.Shipper
	names    []string // of the receivers
	limiter  *ship.Limiter
	maxLine  int

	mu        sync.Mutex // guards converter and out: streams are written one at a time
	converter *scrape.Converter
	out       []byte // documents that are about to be shipped; reused

	counting sync.Mutex // guards counts, for moments only: a write may wait for long
	counts   scrape.Counts
}

// newScrapePipeline makes a pipeline. Nothing moves until its run is called.
func newScrapePipeline(o scrapeOptions) (*scrapePipeline, error) {
	converter, err := scrape.New(o.convert)
	if err != nil {
		return nil, usageError(err)
	}
	p := &scrapePipeline{converter: converter, limiter: ship.NewLimiter(o.limits), maxLine: o.convert.MaxLine}
	for _, r := range o.receivers {
		s, err := ship.New(r)
		if err != nil {
			return nil, errors.Join(err, p.abandon())
		}
		p.shippers = append(p.shippers, s)
		p.names = append(p.names, r.To.String())
	}
	return p, nil
}

// abandon closes what was opened for a pipeline that does not run.
func (p *scrapePipeline) abandon() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return p.run(ctx)
}

// run ships until all lines are delivered after finish, or ctx is done. When one
// receiver fails for good, the others end too.
func (p *scrapePipeline) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	faults := make([]error, len(p.shippers))
	var wg sync.WaitGroup
	for n, s := range p.shippers {
		wg.Go(func() { // ends with ctx, or when all is delivered
			if faults[n] = s.Run(ctx); faults[n] != nil {
				cancel()
			}
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// finish says that no stream is written any more.
func (p *scrapePipeline) finish() {
	for _, s := range p.shippers {
		s.Finish()
	}
}

// scrapeStream is one stream of lines into a pipeline, in blocks as they are
// read. It is used by one goroutine.
type scrapeStream struct {
	p    *scrapePipeline
	rest []byte // an unfinished line, no more of it than counts
}

func (p *scrapePipeline) newStream() *scrapeStream { return &scrapeStream{p: p} }

// write takes the next bytes of the stream and keeps none of them. Every whole
// line is on its way when it returns; it waits where a receiver has no room and
// lines are not to be dropped.
func (s *scrapeStream) write(ctx context.Context, block []byte) error {
	if len(s.rest) > 0 {
		end := bytes.IndexByte(block, '\n') + 1
		if end == 0 {
			s.hold(block)
			return nil
		}
		s.hold(block[:end-1])
		if err := s.end(ctx); err != nil {
			return err
		}
		block = block[end:]
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	out, consumed, counts := s.p.converter.AppendBlock(s.p.out[:0], block)
	s.hold(block[consumed:])
	return s.p.ship(ctx, out, counts)
}

// hold keeps a part of an unfinished line. Of one that is too long it keeps as
// much as shows that.
func (s *scrapeStream) hold(part []byte) {
	s.rest = append(s.rest, part[:min(len(part), max(s.p.maxLine+1-len(s.rest), 0))]...)
}

// end finishes the line that is not finished, as at the end of the stream.
func (s *scrapeStream) end(ctx context.Context) error {
	if len(s.rest) == 0 {
		return nil
	}
	s.rest = append(s.rest, '\n')
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	out, _, counts := s.p.converter.AppendBlock(s.p.out[:0], s.rest)
	if s.rest = s.rest[:0]; cap(s.rest) > s.p.maxLine/2 {
		s.rest = nil
	}
	return s.p.ship(ctx, out, counts)
}

// ship gives documents to all receivers. The mutex is held.
func (p *scrapePipeline) ship(ctx context.Context, out []byte, counts scrape.Counts) error {
	p.out = out
	lines := p.limiter.Pass(out)
	p.count(counts)
	for _, s := range p.shippers {
		if err := s.Ship(ctx, lines); err != nil {
			return err
		}
	}
	if cap(p.out) > 4*p.maxLine {
		p.out = nil
	}
	return nil
}

func (p *scrapePipeline) count(counts scrape.Counts) {
	p.counting.Lock()
	defer p.counting.Unlock()
	p.counts.Add(counts)
}

// scrapeCounters tell what has become of all lines so far.
type scrapeCounters struct {
	lines     scrape.Counts
	limited   ship.Dropped
	receivers []receiverCounters
}

type receiverCounters struct {
	name string
	ship.Counters
}

// counters may be called at any time, also from other goroutines.
func (p *scrapePipeline) counters() scrapeCounters {
	p.counting.Lock()
	c := scrapeCounters{lines: p.counts, limited: p.limiter.Counters().Dropped}
	p.counting.Unlock()
	for n, s := range p.shippers {
		c.receivers = append(c.receivers, receiverCounters{p.names[n], s.Counters()})
	}
	return c
}

// progress tells how many lines were given to the receivers, and how many of those, from
// the first on, all of them have safe: see [ship.Shipper.Safe].
func (p *scrapePipeline) progress() (lines, safe uint64) {
	for n, s := range p.shippers {
		lines = max(lines, s.Counters().Received)
		if here := s.Safe(); n == 0 || here < safe {
			safe = here
		}
	}
	return lines, safe
}

// undelivered lists what of an error of run is about lines that did not arrive.
func undelivered(err error) (list []*ship.Undelivered) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			list = slices.Concat(list, undelivered(e))
		}
		return list
	}
	var u *ship.Undelivered
	if errors.As(err, &u) {
		list = append(list, u)
	}
	return list
}
