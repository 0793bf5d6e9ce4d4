package subcmd

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"pm.example/config"
	"pm.example/output"
)

// scrapers ship what the instances of all programs print that want it. Safe for
// concurrent use.
type scrapers struct {
	outputs *outputs
	slog    *slog.Logger

	mu    sync.Mutex // guards jobs
	jobs  map[outputKey]*scrapeJob
	alive sync.WaitGroup // of the jobs' goroutines
}

// scrapeJob is the scraping of one instance, as one description of its program has
// it.
type scrapeJob struct {
	program *config.Program
	index   int
	cancel  context.CancelFunc // ends it at once
	finish  func()             // ends it when all is delivered
	done    chan struct{}      // closed when it has ended

	mu      sync.Mutex // guards scraper
	scraper *scraper   // nil: not begun, or between two attempts
}

func newScrapers(o *outputs, log *slog.Logger) *scrapers {
	return &scrapers{outputs: o, slog: log, jobs: map[outputKey]*scrapeJob{}}
}

// configure takes over how programs are described now. It waits for nothing.
func (s *scrapers) configure(programs []*config.Program) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[outputKey]bool{}
	for _, p := range programs {
		if !p.Logs.Scrape.On() {
			continue
		}
		for index := range p.NumProcs {
			key := outputKey{p.Name, index}
			wanted[key] = true
			if job := s.jobs[key]; job == nil || !sameScrape(job.program, p) {
				s.start(key, p)
			}
		}
	}
	for key, job := range s.jobs {
		if !wanted[key] {
			job.finish()
			delete(s.jobs, key)
		}
	}
}

// sameScrape reports whether two descriptions of a program are the same for its
// scraper.
func sameScrape(a, b *config.Program) bool {
	return reflect.DeepEqual(a.Logs.Scrape, b.Logs.Scrape) && a.Stdout == b.Stdout && a.Stderr == b.Stderr && a.WorkingDir == b.WorkingDir &&
		a.Labels[scrapeLabel] == b.Labels[scrapeLabel]
}

// start starts the job of an instance, after the end of the one that it has. The
// caller holds s.mu.
func (s *scrapers) start(key outputKey, p *config.Program) {
	ctx, cancel := context.WithCancel(context.Background())
	finish := make(chan struct{})
	job := &scrapeJob{program: p, index: key.index, cancel: cancel, finish: sync.OnceFunc(func() { close(finish) }), done: make(chan struct{})}
	before := s.jobs[key]
	if before != nil {
		before.cancel() // what it has not delivered is read again
	}
	s.jobs[key] = job
	s.hold(job)
	s.alive.Go(func() { // ends with cancel or finish
		defer close(job.done)
		defer cancel()
		if before != nil {
			<-before.done
			s.holdAgain(key, job)
		}
		s.work(ctx, finish, job)
	})
}

// hold has the log of an instance keep what is not shipped, if its program is to wait
// for that. It is done before any pipe is read: an earlier worker may have left much.
func (s *scrapers) hold(job *scrapeJob) {
	log := s.outputs.log(job.program.Name, job.index)
	if job.program.Logs.Scrape.OnFull != "block" {
		log.Unguard()
		return
	}
	known, _, _ := readPlaces(s.outputs.placeFile(outputKey{job.program.Name, job.index})) // what cannot be read guards all
	log.Guard(known[ringSource{}.label()])
}

// holdAgain does so once more when the job before has ended, which has held the log to
// its end as it was told.
func (s *scrapers) holdAgain(key outputKey, job *scrapeJob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[key] == job {
		s.hold(job)
	}
}

// scrapeAgain is the pause after a scraper that has failed for good, as on a file
// that cannot be written.
const scrapeAgain = 5 * time.Second

// work scrapes until ctx or finish ends it.
func (s *scrapers) work(ctx context.Context, finish <-chan struct{}, job *scrapeJob) {
	for {
		err := s.attempt(ctx, finish, job)
		if err != nil && ctx.Err() == nil {
			s.slog.Error("lines are not shipped", "instance", job.name(), "problem", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-finish:
			s.outputs.log(job.program.Name, job.index).Unguard()
			return
		case <-time.After(scrapeAgain):
		}
	}
}

func (j *scrapeJob) name() string { return config.InstanceName(j.program, j.index) }

// attempt makes a scraper and runs it.
func (s *scrapers) attempt(ctx context.Context, finish <-chan struct{}, job *scrapeJob) error {
	p, scrape := job.program, &job.program.Logs.Scrape
	spool := scrape.Spool
	if spool != "" {
		spool = filepath.Join(spool, outputKey{p.Name, job.index}.file())
		if err := os.MkdirAll(filepath.Dir(spool), 0o700); err != nil {
			return err
		}
	}
	options, err := scrapeOf(p, job.index, spool, func(text string) { s.slog.Warn("scrape: "+text, "instance", job.name()) })
	if err != nil {
		return err
	}
	pipeline, err := newScrapePipeline(options)
	if err != nil {
		return err
	}
	sc := &scraper{
		name: job.name(), pipeline: pipeline, sources: s.outputs.scraped(p, job.index), linger: scrape.Linger,
		path: s.outputs.placeFile(outputKey{p.Name, job.index}), slog: s.slog, fresh: make(chan struct{}, 1),
	}
	if scrape.OnFull == "block" {
		sc.log = s.outputs.log(p.Name, job.index)
	}
	job.mu.Lock()
	job.scraper = sc
	job.mu.Unlock()
	return sc.run(ctx, finish)
}

// scraped lists where the output of an instance is. A file belongs to all instances
// of its program: the first one's scraper ships it.
func (o *outputs) scraped(p *config.Program, index int) []logSource {
	list := o.sources(p, index, output.Both)
	if index > 0 {
		list = list[:1]
	}
	return list
}

// counters tell what has become of the lines of an instance in this process; nil if
// they are not shipped.
func (s *scrapers) counters(program string, index int) *countersDocument {
	s.mu.Lock()
	job := s.jobs[outputKey{program, index}]
	s.mu.Unlock()
	if job == nil {
		return nil
	}
	job.mu.Lock()
	sc := job.scraper
	job.mu.Unlock()
	if sc == nil {
		return nil
	}
	d := sc.counters()
	return &d
}

// end ends all scrapers: when all is delivered, or after their linger. With atOnce
// they end now, and what is not delivered is left to the next daemon.
func (s *scrapers) end(atOnce bool) {
	s.mu.Lock()
	for _, job := range s.jobs {
		if atOnce {
			job.cancel()
		}
		job.finish()
	}
	s.mu.Unlock()
	s.alive.Wait()
}
