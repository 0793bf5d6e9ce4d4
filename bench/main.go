// Bench compares pm with the least that can be called a supervisor, a C program
// that only forks and waits (floor/floor.c), and with supervisor, runit and s6. All
// keep the same tiny program (idle/idle.c), in turns, on the same machine
// and in the same run, so that what is told is a ratio more than a time.
//
// It is run by make bench, as
//
//	go run ./bench [-only REGEXP] [-rounds N] [-json] [-pm FILE]
//
// needs a C compiler, and leaves nothing behind. docs/benchmarks.md says what
// each row means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	only             *regexp.Regexp
	rounds           int
	supervisorRounds int
	json             bool
	list             bool
	pm               string
	timeout          time.Duration
}

func main() {
	// What this program starts gets a signal when the thread that started it
	// ends; the main thread ends only with the process.
	runtime.LockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	if errors.Is(err, context.Canceled) {
		os.Exit(130)
	}
	os.Exit(1)
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&only, "only", "", "measure only the rows whose name matches `REGEXP`")
	flags.IntVar(&o.rounds, "rounds", 5, "start and stop floor and pm so often, in turns; the median counts")
	flags.IntVar(&o.supervisorRounds, "supervisor-rounds", 1, "the same for supervisor, which is slow; 0 leaves it out")
	flags.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	flags.BoolVar(&o.list, "list", false, "print the names of the rows and end")
	flags.StringVar(&o.pm, "pm", "bin/pm", "measure the pm in `FILE`")
	flags.DurationVar(&o.timeout, "timeout", 20*time.Minute, "give up after `DURATION`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: bench takes flags only", flags.Arg(0))
	}
	if o.rounds < 1 || o.supervisorRounds < 0 {
		return o, errors.New("-rounds must be 1 or more, -supervisor-rounds 0 or more")
	}
	re, err := regexp.Compile(only)
	if err != nil {
		return o, fmt.Errorf("-only %q is no regular expression: %w", only, err)
	}
	o.only = re
	return o, nil
}

// run does everything: build, measure, print, clean up.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.list {
		for _, r := range rows() {
			fmt.Fprintf(stdout, "%-16s %s\n", r.Name, r.What)
		}
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done after %s; see -timeout and -only", o.timeout))
	defer cancel()
	b, err := newBench(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	failed := b.measure(ctx)
	if o.json {
		return errors.Join(failed, printJSON(stdout, b.report()))
	}
	return errors.Join(failed, printTable(stdout, b.report()))
}
