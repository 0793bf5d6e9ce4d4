package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newTestBench makes a bench whose pm only fails: the tests use floor.
func newTestBench(t *testing.T) *bench {
	t.Helper()
	pm := filepath.Join(t.TempDir(), "pm")
	if err := os.WriteFile(pm, []byte("#!/bin/sh\necho no pm >&2\nexit 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := parse([]string{"-pm", pm, "-rounds", "1", "-supervisor-rounds", "0"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBench(t.Context(), o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(b.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
		if left, err := running(b.dir + "/"); err != nil || len(left) > 0 {
			t.Errorf("processes are left: %v, %v", left, err)
		}
	})
	return b
}

func TestFloorStartsReplacesAndStops(t *testing.T) {
	b := newTestBench(t)
	err := b.with(t.Context(), b.floor, load{5, plain}, func(s *session, start time.Duration) error {
		if start <= 0 || len(s.pids) != 5 {
			t.Errorf("started %d programs in %s", len(s.pids), start)
		}
		before := append([]int{}, s.pids...)
		if err := s.replace(t.Context(), rowReplace1); err != nil {
			return err
		}
		for i, pid := range s.pids {
			if pid == before[i] {
				t.Errorf("program %d was not replaced", i)
			}
		}
		u, err := s.usage()
		if err != nil || u.threads != 1 || u.pss == 0 || u.switches == 0 {
			t.Errorf("usage of floor = %+v, %v", u, err)
		}
		_, err = s.stop(t.Context())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.samples[rowReplace1][nameFloor]); n != replacements {
		t.Errorf("%d samples, not %d", n, replacements)
	}
}

// What takes the place of floor has in its file what was printed.
func TestCopyKeepsLines(t *testing.T) {
	b := newTestBench(t)
	b.printed = 1
	copier, err := b.buildCapture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = b.with(t.Context(), copier, load{1, printing}, func(s *session, _ time.Duration) error {
		if err := s.capture(t.Context()); err != nil {
			return err
		}
		lines, err := os.ReadFile(filepath.Join(s.dir, "lines"))
		if want := bytes.Repeat([]byte(strings.Repeat("x", 199)+"\n"), 17*327); !bytes.Equal(lines, want) {
			t.Errorf("%d bytes of %d are kept", len(lines), len(want))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestFloorLetsAFailedStartEnd(t *testing.T) {
	b := newTestBench(t)
	b.idle = filepath.Join(b.dir, "missing")
	err := b.with(t.Context(), b.floor, load{3, plain}, func(*session, time.Duration) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "cannot start "+b.idle+": No such file or directory") {
		t.Errorf("floor with a missing program: %v", err)
	}
}

func TestFloorCountsTheStartsOfACrashLoop(t *testing.T) {
	b := newTestBench(t)
	err := b.with(t.Context(), b.floor, load{4, crash}, func(s *session, _ time.Duration) error {
		for { // until it has started some
			u, err := s.usage()
			if err != nil || u.switches > 50 {
				break
			}
		}
		if _, err := s.stop(t.Context()); err != nil {
			return err
		}
		data, err := os.ReadFile(s.output.Name())
		if err != nil {
			return err
		}
		if n, err := startsOfFloor(data); err != nil || n < 4 {
			t.Errorf("floor has started %d: %v", n, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A run that is ended early says why, and leaves nothing behind, which
// newTestBench proves.
func TestCancelledWhileProgramsRun(t *testing.T) {
	b := newTestBench(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("that is enough")
	err := b.with(ctx, b.floor, load{5, plain}, func(s *session, _ time.Duration) error {
		cancel(why)
		_, err := s.next(ctx)
		return err
	})
	if !errors.Is(err, why) {
		t.Errorf("err = %v", err)
	}
	if err := b.with(ctx, b.floor, load{5, plain}, nil); !errors.Is(err, why) {
		t.Errorf("a session begun after the end: %v", err)
	}
}

func TestSupervisorThatEnds(t *testing.T) {
	b := newTestBench(t)
	err := b.with(t.Context(), b.floor, load{1, plain}, func(s *session, _ time.Duration) error {
		if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		_, err := s.next(t.Context())
		return err
	})
	if err == nil || !strings.HasPrefix(err.Error(), "floor with 1 programs: ") {
		t.Errorf("err = %v", err)
	}
}

// A failure costs its scenario, not those that follow.
func TestOneFailureCostsOneScenario(t *testing.T) {
	b := newTestBench(t)
	b.only = regexp.MustCompile("^replace-1$|^status-server$")
	err := b.measure(t.Context())
	if err == nil || strings.Count(err.Error(), "no pm") != 2 {
		t.Errorf("err = %v", err)
	}
	if len(b.notes) != 2 {
		t.Errorf("notes: %q", b.notes)
	}
	if len(b.samples[rowReplace1][nameFloor]) == 0 {
		t.Error("nothing was measured of floor")
	}
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"start"}, `unexpected argument "start"`},
		{[]string{"-rounds", "0"}, "-rounds must be 1 or more"},
		{[]string{"-only", "("}, `-only "(" is no regular expression`},
		{[]string{"-pm", "/no/such/pm"}, "cannot use the pm to be measured"},
	} {
		err := run(t.Context(), c.args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestListNamesEveryRowOnce(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-list"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	measured := map[string]int{}
	for _, s := range scenarios() {
		for _, name := range s.rows {
			measured[name]++
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(measured) {
		t.Errorf("%d rows, %d are measured", len(lines), len(measured))
	}
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, " "); measured[name] != 1 {
			t.Errorf("row %q is measured by %d scenarios", name, measured[name])
		}
	}
}

func TestDocsNameEveryRow(t *testing.T) {
	docs, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows() {
		if !bytes.Contains(docs, []byte("`"+r.Name+"`")) {
			t.Errorf("docs/benchmarks.md does not name the row %s", r.Name)
		}
	}
}

func TestRowResult(t *testing.T) {
	for _, c := range []struct {
		row     row
		samples map[string][]float64
		wanted  string
		met     string
		ratio   string
	}{
		{row{Times: 1.5}, map[string][]float64{nameFloor: {100}, namePM: {150}}, "≤ 1.5 × floor", "yes", "1.5"},
		{row{Times: 1.5}, map[string][]float64{nameFloor: {100}, namePM: {151}}, "≤ 1.5 × floor", "NO", "1.51"},
		{row{Times: 1.5}, map[string][]float64{namePM: {151}}, "≤ 1.5 × floor", "", "–"},
		{row{Limit: 12, Unit: "KiB"}, map[string][]float64{namePM: {1, 11, 30}}, "≤ 12 KiB", "yes", "–"},
		{row{Limit: 12, Unit: "KiB"}, map[string][]float64{namePM: {13}}, "≤ 12 KiB", "NO", "–"},
		{row{Limit: 4000, AtLeast: true}, map[string][]float64{namePM: {3999}}, "4000", "NO", "–"},
		{row{Limit: 4000, AtLeast: true}, map[string][]float64{namePM: {4000}}, "4000", "yes", "–"},
		{row{None: true, Unit: "ms"}, map[string][]float64{nameFloor: {0}, namePM: {0}}, "≤ 0 ms", "yes", "–"},
		{row{}, map[string][]float64{nameFloor: {2}, namePM: {1}}, "", "", "0.5"},
		{row{Times: 2}, map[string][]float64{nameFloor: {2}}, "≤ 2 × floor", "", "–"},
	} {
		got := c.row.result(c.samples)
		if got.Wanted != c.wanted || verdict(got.Met) != c.met || cell(got.Ratio) != c.ratio {
			t.Errorf("%+v of %v = wanted %q, met %q, ratio %q", c.row, c.samples, got.Wanted, verdict(got.Met), cell(got.Ratio))
		}
	}
}

func TestMedianAndNumber(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{nil, "–"},
		{[]float64{3}, "3"},
		{[]float64{9, 1, 2}, "2"},
		{[]float64{4, 1}, "2.5"},
		{[]float64{0.034}, "0.03"},
		{[]float64{0}, "0"},
		{[]float64{9.999}, "10"},
		{[]float64{12.34}, "12.3"},
		{[]float64{100}, "100"},
		{[]float64{1234.5}, "1234"},
	} {
		if got := cell(median(c.values)); got != c.want {
			t.Errorf("median of %v = %s, want %s", c.values, got, c.want)
		}
	}
}

func TestTableAndJSON(t *testing.T) {
	one, yes := 1.0, true
	r := report{
		Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Machine: "a machine", Notes: []string{"a note"},
		Rows: []result{{Name: "start", What: "start many", Unit: "ms", Floor: &one, PM: &one, Ratio: &one, Wanted: "≤ 2 × floor", Met: &yes, Samples: 3}},
	}
	var out bytes.Buffer
	if err := printTable(&out, r); err != nil {
		t.Fatal(err)
	}
	want := `2026-01-02, a machine

row    what        unit  floor  pm  supervisor  runit  s6  pm/floor  at best  wanted       met
start  start many  ms    1      1   –           –      –   1         –        ≤ 2 × floor  yes

note: a note
`
	if out.String() != want {
		t.Errorf("table is\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := printJSON(&out, r); err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(out.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	row := back["rows"].([]any)[0].(map[string]any)
	if row["name"] != "start" || row["supervisor"] != nil || row["met"] != true {
		t.Errorf("JSON row is %v", row)
	}
}

func TestParsersOfProc(t *testing.T) {
	const stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 11 7 0 0 20 0 1 0 100 0 0\n"
	if n, err := cpuTicks([]byte(stat)); n != 18 || err != nil {
		t.Errorf("cpuTicks = %d, %v", n, err)
	}
	for _, bad := range []string{"", "42 (idle) S 1", "no parenthesis 1 2 3 4 5 6 7 8 9 10 11 12 13 14"} {
		if n, err := cpuTicks([]byte(bad)); err == nil {
			t.Errorf("cpuTicks(%q) = %d", bad, n)
		}
	}
	const status = "Name:\tpm\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n"
	if n, err := contextSwitches([]byte(status)); n != 7 || err != nil {
		t.Errorf("contextSwitches = %d, %v", n, err)
	}
	if _, err := contextSwitches([]byte("Name:\tpm\n")); err == nil {
		t.Error("contextSwitches of a text without them")
	}
	if n, err := field([]byte("Rss: 12 kB\nPss: 8 kB\n"), "Pss:"); n != 8 || err != nil {
		t.Errorf("field = %d, %v", n, err)
	}
}

func FuzzParsersOfProc(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 11 7 0 0 20"))
	f.Add([]byte("voluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t2\n"))
	f.Add([]byte("started 12\n"))
	f.Fuzz(func(_ *testing.T, data []byte) { // they must only not panic
		_, _ = cpuTicks(data)
		_, _ = contextSwitches(data)
		_, _ = startsOfFloor(data)
	})
}

func TestPMConfig(t *testing.T) {
	for _, c := range []struct {
		load load
		want string
	}{
		{load{4000, defaults}, "[programs.idle]\ncmd = [\"/i\",\"/s\"]\nnumprocs = 4000\n"},
		{load{1, printing}, "[programs.idle]\ncmd = [\"/i\",\"/s\"]\nnumprocs = 1\nstarttime = 0\nautorestart = \"always\"\nbackoff.burst = 1000000\nstdout = \"lines\"\nlogs.rotate = \"10M\"\n"},
		{load{500, wild}, "[programs.idle]\ncmd = [\"/i\",\"/s\"]\nnumprocs = 1\nkill.sequence = [\"KILL 1s\"]\nstarttime = 0\nstdout = \"discard\"\nstderr = \"discard\"\n"},
		{load{1000, kept}, "[programs.idle]\ncmd = [\"/i\",\"/s\"]\nnumprocs = 1000\nstarttime = 0\nautorestart = \"always\"\nbackoff.burst = 1000000\n"},
	} {
		if got := pmConfig(c.load, []string{"/i", "/s"}); got != c.want {
			t.Errorf("config is\n%swant\n%s", got, c.want)
		}
	}
}
