package subcmd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/runner"
	"pm.example/socket"
)

// outputs are where programs print that do not write to their files themselves: a
// log of each instance, and files that pm writes. Safe for concurrent use.
type outputs struct {
	loop    *output.Loop
	dir     string // of the files of the logs
	slog    *slog.Logger
	drained func(task string, stream int) // told when a pipe has reached its end

	mu       sync.Mutex // guards all below
	logs     map[outputKey]*output.Log
	programs map[string]*config.Program // in force
	files    map[string]*output.File    // by path: a file has one writer
	outlets  map[string]*outlet         // by outletKey
}

func newOutputs(loop *output.Loop, drained func(task string, stream int), log *slog.Logger) *outputs {
	return &outputs{loop: loop, drained: drained, slog: log, logs: map[outputKey]*output.Log{}, files: map[string]*output.File{}, outlets: map[string]*outlet{}}
}

type outputKey struct {
	program string
	index   int
}

// file is what the names of the log's files begin with.
func (k outputKey) file() string { return url.PathEscape(k.program) + "." + strconv.Itoa(k.index) }

// sweep deletes what is kept of all instances but those that the programs have and
// those that an earlier daemon has left.
func (o *outputs) sweep(programs []*runner.Program, saved []runner.Saved) error {
	keep := map[string]bool{}
	for _, p := range programs {
		for index := range p.NumProcs {
			keep[outputKey{p.Name, index}.file()] = true
		}
	}
	for _, s := range saved {
		keep[outputKey{s.Program, s.Index}.file()] = true
	}
	return errors.Join(output.Sweep(o.dir, keep), sweepInputs(o.dir, keep))
}

// log returns the log of an instance, new if it has none.
func (o *outputs) log(program string, index int) *output.Log {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := outputKey{program, index}
	if o.logs[key] == nil {
		log, err := output.OpenLog(o.limit(program), filepath.Join(o.dir, key.file()))
		if err != nil {
			o.slog.Warn("kept output", "program", program, "index", index, "problem", err)
		}
		o.logs[key] = log
	}
	return o.logs[key]
}

// scrapedLimit is how much is kept of a program whose lines are shipped: so much can
// be under way.
const scrapedLimit = 1 << 20

// limit is how much is kept of a program's output; 0 is the usual. The caller holds
// o.mu.
func (o *outputs) limit(program string) int {
	if p := o.programs[program]; p != nil && p.Logs.Scrape.On() {
		return scrapedLimit
	}
	return 0
}

// drop forgets the logs of instances that are gone, and ends who follows them.
func (o *outputs) drop(program string, index int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := outputKey{program, index}
	_ = os.Remove(inputFile(o.dir, program, index)) // of one that nothing can be sent to there is none
	if log := o.logs[key]; log != nil {
		log.Remove()
		delete(o.logs, key)
		_ = os.Remove(o.placeFile(key)) // of one whose lines were never shipped there is none
	}
}

// configure takes over how programs are described now. Files that are written go
// on under the new rules.
func (o *outputs) configure(programs []*config.Program) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.programs = make(map[string]*config.Program, len(programs))
	wanted := map[string]bool{}
	for _, p := range programs {
		o.programs[p.Name] = p
		for _, path := range writtenFiles(p) {
			wanted[path] = true
			if f := o.files[path]; f != nil {
				f.Set(fileOptions(p))
			}
		}
		o.configureOutlets(p, wanted)
	}
	for path, f := range o.files {
		if !wanted[path] && o.loop.Idle(f) {
			f.Close()
			delete(o.files, path)
		}
	}
	o.dropOutlets(wanted)
}

// writtenFiles lists the files that pm writes for a program.
func writtenFiles(p *config.Program) (paths []string) {
	for _, where := range []string{p.Stdout, p.Stderr} {
		if p.ThroughPM(where) && outletName(p, where, output.Stdout) == "" {
			paths = append(paths, inDir(p.WorkingDir, where))
		}
	}
	return paths
}

func fileOptions(p *config.Program) output.FileOptions {
	l := &p.Logs
	return output.FileOptions{Size: l.Rotate, Age: l.RotateAge, Files: l.Files, Total: l.Total, Timestamps: l.Zone(), Prefix: l.Prefix, JSON: l.Format == "json", Compress: l.Compress, Drop: l.OnFull == "drop"}
}

// file returns the file that pm writes for a stream of an instance, and the name
// of that; nil if it is kept in a log.
func (o *outputs) file(program string, index int, stream output.Stream) (*output.File, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.programs[program]
	if p == nil {
		return nil, ""
	}
	where, _ := whereOf(p, stream)
	if !config.IsFile(where) {
		return nil, ""
	}
	path := inDir(p.WorkingDir, where)
	if o.files[path] == nil {
		o.files[path] = output.NewFile(path, o.transit(path), fileOptions(p), o.told(path))
	}
	return o.files[path], config.InstanceName(p, index)
}

// transit returns where lines are kept on their way into a file; empty if no daemon
// will follow that would look for them.
func (o *outputs) transit(path string) string {
	if o.dir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(o.dir, hex.EncodeToString(sum[:12])+".transit")
}

// told returns who is told of what makes it impossible to write a file.
func (o *outputs) told(path string) func(output.Condition) {
	return func(c output.Condition) {
		switch {
		case c.Compression != nil:
			o.slog.Warn("a rotated file stays as it is until the next one", "problem", c.Compression)
		case c.Problem != nil:
			o.slog.Error("output waits in its pipes", "problem", c.Problem)
		case c.Dropped.Bytes > 0:
			o.slog.Warn("output is written again", "file", path, "dropped_lines", c.Dropped.Lines, "dropped_bytes", c.Dropped.Bytes)
		default:
			o.slog.Info("output is written again", "file", path)
		}
	}
}

// status tells how the files are that pm writes for a program; nil if there is
// nothing to tell.
func (o *outputs) status(p *config.Program) *socket.Output {
	var out socket.Output
	for _, c := range o.conditions(p) {
		out.DroppedLines += c.Dropped.Lines
		out.DroppedBytes += c.Dropped.Bytes
		if c.Problem != nil {
			out.Problem = c.Problem.Error()
		}
	}
	if out == (socket.Output{}) {
		return nil
	}
	return &out
}

// capture reads the pipes of a spawned task into the log of its instance or into
// files. What belongs to no instance is not read.
func (o *outputs) capture(program string, index int, e proc.Event) error {
	if program == "" {
		defer e.ClosePipes()
	}
	var errs []error
	for n, pipe := range []int{e.Stdout, e.Stderr} {
		done := func() { o.drained(e.ID, n) }
		switch {
		case pipe < 0:
		case program == "":
			done()
		default:
			err := o.read(pipe, program, index, output.Stdout+output.Stream(n), done)
			if err != nil {
				done()
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// read reads one pipe.
func (o *outputs) read(pipe int, program string, index int, stream output.Stream, done func()) error {
	if out, instance := o.outlet(program, index, stream); out != nil {
		return o.loop.AddOutlet(pipe, out, instance, stream, done)
	}
	if f, instance := o.file(program, index, stream); f != nil {
		return o.loop.AddFile(pipe, f, instance, stream, done)
	}
	return o.loop.Add(pipe, o.log(program, index), stream, done)
}

func inDir(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
