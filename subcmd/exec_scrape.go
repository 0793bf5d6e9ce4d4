package subcmd

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
)

// execScrape ships what the program of pm exec prints: what goes to pm's own streams
// passes through pm, and files are followed.
type execScrape struct {
	e        *env
	program  *config.Program
	pipeline *scrapePipeline
	cancel   context.CancelFunc // ends all
	ctx      context.Context
	shipped  chan error     // gets the pipeline's end
	pipes    sync.WaitGroup // of the goroutines that read them
	files    *scraper       // follows the files
	followed chan struct{}  // closed when that has ended
	stop     context.CancelFunc
	stderr   io.Writer
	quiet    bool
}

// newExecScrape starts to ship; nil if nothing is to be.
func newExecScrape(e *env, p *config.Program, quiet bool) (*execScrape, error) {
	if !p.Logs.Scrape.On() {
		return nil, nil
	}
	x := &execScrape{e: e, program: p, shipped: make(chan error, 1), followed: make(chan struct{}), stderr: &lockedWriter{w: e.stderr}, quiet: quiet}
	flags := scrapeFlags(p, p.Logs.Scrape.Spool)
	if err := flags.fromEnvironment(e.getenv, given(&p.Logs.Scrape)); err != nil {
		return nil, usageError(err)
	}
	options, err := flags.silent(x.say)
	if err != nil {
		return nil, usageError(err)
	}
	if x.pipeline, err = newScrapePipeline(options); err != nil {
		return nil, scrapeProblem(err)
	}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	go func() { x.shipped <- x.pipeline.run(x.ctx) }() // ends with cancel, or after finish
	x.files = &scraper{pipeline: x.pipeline, sources: fileSources(p, output.Both), linger: p.Logs.Scrape.Linger, fresh: make(chan struct{}, 1)}
	for _, source := range x.files.sources {
		_, place, _, _ := source.tail(0, time.Time{}) // what was there before is not the program's
		x.files.read = append(x.files.read, place)
	}
	x.files.resumed = slices.Clone(x.files.read)
	following, stop := context.WithCancel(x.ctx)
	x.stop = stop
	go func() { defer close(x.followed); _ = x.files.follow(following) }() // ends with stop
	return x, nil
}

// given reports which flags of pm scrape-logs the keys of a program stand for: where
// none does, a variable counts.
func given(s *config.Scrape) func(flag string) bool {
	keys := map[string]bool{
		"to": true, "ignore-key": len(s.IgnoreKeys) > 0, "on-full": s.OnFull != onFulls[0],
		"rate-limit": s.RateLimit > 0, "size-limit": s.SizeLimit > 0,
	}
	return func(flag string) bool { return keys[flag] }
}

func (x *execScrape) say(text string) {
	if !x.quiet {
		tell(x.stderr, text)
	}
}

// pipe has a stream that would be pm's own pass through pm.
func (x *execScrape) pipe(s *proc.Stdio) {
	if x != nil && s.Kind == proc.Descriptor {
		*s = proc.Stdio{Kind: proc.Pipe}
	}
}

// capture takes the pipes of a launch that are not for files.
func (x *execScrape) capture(ev *proc.Event) {
	if x == nil {
		return
	}
	if x.program.Stdout == "" && ev.Stdout >= 0 {
		x.read(ev.Stdout, "stdout", x.e.stdout)
		ev.Stdout = -1
	}
	if x.program.Stderr == "" && ev.Stderr >= 0 {
		x.read(ev.Stderr, "stderr", x.e.stderr)
		ev.Stderr = -1
	}
}

// read passes on what comes from a pipe. When nobody takes it any more the pipe is
// closed, so that the program notices as if it were its own.
func (x *execScrape) read(fd int, name string, to io.Writer) {
	from, stream := os.NewFile(uintptr(fd), name), x.pipeline.newStream()
	x.pipes.Go(func() { // ends with the last who has the pipe, or with cancel
		defer func() { _ = from.Close() }()
		block := make([]byte, readSize)
		for {
			n, err := from.Read(block)
			if n > 0 {
				if _, err := to.Write(block[:n]); err != nil {
					return
				}
				if stream.write(x.ctx, block[:n]) != nil {
					return
				}
			}
			if err != nil {
				_ = stream.end(x.ctx) // fails only with the pipeline, which tells of it
				return
			}
		}
	})
}

// end delivers the rest, within the time to linger, and tells the counters.
func (x *execScrape) end() {
	if x == nil {
		return
	}
	defer x.cancel()
	defer time.AfterFunc(x.files.linger, x.cancel).Stop()
	read := make(chan struct{})
	go func() { defer close(read); x.pipes.Wait() }() // ends with the pipes, or with the process
	select {
	case <-read:
	case <-x.ctx.Done():
	}
	if len(x.files.sources) > 0 {
		x.files.quiet(x.ctx)
	}
	x.stop()
	<-x.followed
	x.pipeline.finish()
	if err := <-x.shipped; err != nil && !errors.Is(err, context.Canceled) {
		x.say(err.Error())
	}
	if !x.quiet {
		x.pipeline.counters().tell(x.stderr, false)
	}
}
