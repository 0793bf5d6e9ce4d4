package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// row is a figure: what it is, and how good it has to be.
type row struct {
	Name string
	What string
	Unit string
	// The bound: at most Times as much as floor, or at most Limit, in the unit;
	// at least Limit if AtLeast. Without any the row is for information.
	Times   float64
	Limit   float64
	AtLeast bool
	None    bool // the bound is nothing at all
}

// The names of the rows.
const (
	rowStart          = "start"
	rowStartKept      = "start-kept"
	rowStop           = "stop"
	rowShutdown       = "shutdown"
	rowShutdownKept   = "shutdown-kept"
	rowReplace1       = "replace-1"
	rowReplace1000    = "replace-1000"
	rowIdleSwitches   = "idle-switches"
	rowIdleCPU        = "idle-cpu"
	rowRunning4000    = "running-4000"
	rowRunningTime    = "running-4000-time"
	rowThreads4000    = "threads-4000"
	rowPSS1000        = "pss-1000"
	rowPSS4000        = "pss-4000"
	rowCrashCPU       = "crash-cpu"
	rowCrashRate      = "crash-rate"
	rowStatusClient   = "status-client"
	rowStatusServer   = "status-server"
	rowFind1          = "find-1"
	rowFind100        = "find-100"
	rowFind2000       = "find-2000"
	rowKill500        = "kill-500"
	rowKill2000       = "kill-2000"
	rowCapture        = "capture"
	rowExec           = "exec"
	rowExecExtra      = "exec-extra"
	rowExecMemory     = "exec-memory"
	rowExecCPU        = "exec-cpu"
	rowKeptMain       = "kill-main-kept"
	rowExtraMain      = "kill-main-extra"
	rowKeptAll        = "kill-all-kept"
	rowExtraAll       = "kill-all-extra"
	rowControl        = "control-1000"
	rowStrays         = "strays"
	rowStart10000     = "start-10000"
	rowPSS10000       = "pss-10000"
	rowThreads10000   = "threads-10000"
	rowStatus10000    = "status-10000"
	rowReload10000    = "reload-10000"
	rowReplace10000   = "replace-10000"
	rowStop10000      = "stop-10000"
	programsOfStart   = 1000
	programsOfDefault = 4000
	programsOfCrash   = 200
	programsOfStatus  = 100
)

// rows lists all rows in the order of the table.
func rows() []row {
	return []row{
		{Name: rowStart, What: "start 1,000 programs, output discarded", Unit: "ms", Times: 1.5},
		{Name: rowStartKept, What: "start 1,000 programs, output kept by the daemon", Unit: "ms", Times: 1.5},
		{Name: rowStop, What: "stop 1,000 programs by the API", Unit: "ms", Times: 2},
		{Name: rowShutdown, What: "shut down with 1,000 programs, output discarded", Unit: "ms", Times: 2},
		{Name: rowShutdownKept, What: "shut down with 1,000 programs, output kept", Unit: "ms", Times: 2},
		{Name: rowReplace1, What: "death to replacement, 1 program", Unit: "µs", Times: 1.3},
		{Name: rowReplace1000, What: "death to replacement, 1,000 programs", Unit: "µs", Times: 1.3},
		{Name: rowRunning4000, What: "of 4,000 programs running, default settings", Limit: programsOfDefault, AtLeast: true},
		{Name: rowRunningTime, What: "4,000 programs until all are RUNNING (starttime 1s)", Unit: "ms"},
		{Name: rowThreads4000, What: "threads with 4,000 programs", Limit: 63},
		{Name: rowPSS1000, What: "PSS per program with 1,000, default settings", Unit: "KiB"},
		{Name: rowPSS4000, What: "PSS per program with 4,000, default settings", Unit: "KiB", Limit: 12},
		{Name: rowIdleSwitches, What: "idle with 1,000 programs: context switches", Unit: "/s", Limit: 1},
		{Name: rowIdleCPU, What: "idle with 1,000 programs: CPU in 10 s", Unit: "ms", None: true},
		{Name: rowCrashCPU, What: "200 programs in a crash loop: CPU per start", Unit: "ms", Limit: 0.3},
		{Name: rowCrashRate, What: "200 programs in a crash loop: starts", Unit: "/s"},
		{Name: rowStatusClient, What: "status of 100 programs: the whole command", Unit: "ms", Limit: 12},
		{Name: rowStatusServer, What: "status of 100 programs: a request", Unit: "ms", Limit: 1},
		{Name: rowFind1, What: "find a tree of 1 process among 4,000 others", Unit: "ms", Times: 1.5},
		{Name: rowFind100, What: "find a tree of 100 processes among 4,000 others", Unit: "ms", Times: 1.5},
		{Name: rowFind2000, What: "find a tree of 2,000 processes among 4,000 others", Unit: "ms", Times: 1.5},
		{Name: rowKill500, What: "kill a tree of 500 processes that withstands", Unit: "ms", Times: 1.5},
		{Name: rowKill2000, What: "kill a tree of 2,000 processes that withstands", Unit: "ms", Times: 1.5},
		{Name: rowCapture, What: "CPU for a GiB of lines in files that are rotated", Unit: "s", Limit: 0.9},
		{Name: rowExec, What: "pm exec -- true, floor: tini -s -- true", Unit: "ms"},
		{Name: rowExecExtra, What: "what pm exec -- true takes more than tini", Unit: "ms", Limit: 3},
		{Name: rowExecMemory, What: "pm exec -- true, floor: tini: most memory", Unit: "MiB", Limit: 16},
		{Name: rowKeptMain, What: "20 programs, main process killed: run on", Limit: programsOfSurvival, AtLeast: true},
		{Name: rowExtraMain, What: "20 programs, main process killed: too many", None: true},
		{Name: rowKeptAll, What: "20 programs, all of it killed: run on", Limit: programsOfSurvival, AtLeast: true},
		{Name: rowExtraAll, What: "20 programs, all of it killed: too many", None: true},
		{Name: rowControl, What: "1,000 programs, worker killed: until control works", Unit: "ms", Limit: 100},
		{Name: rowStrays, What: "20 programs with a stray each: left after the stop", None: true},
		{Name: rowStart10000, What: "start 10,000 programs", Unit: "ms", Times: 2},
		{Name: rowPSS10000, What: "PSS per program with 10,000", Unit: "KiB", Limit: 8},
		{Name: rowThreads10000, What: "threads with 10,000 programs", Limit: 63},
		{Name: rowStatus10000, What: "status of 10,000 programs: a request", Unit: "ms", Limit: 100},
		{Name: rowReload10000, What: "reload that changes one of 10,000 programs", Unit: "ms", Limit: 50},
		{Name: rowReplace10000, What: "death to replacement, 10,000 programs", Unit: "µs", Limit: 1000},
		{Name: rowStop10000, What: "shut down with 10,000 programs", Unit: "ms"},
		{Name: rowExecCPU, What: "pm exec -- sleep 10: CPU, start included", Unit: "ms", Limit: 10},
	}
}

// result is a row with its figures, which are medians.
type result struct {
	Name       string   `json:"name"`
	What       string   `json:"what"`
	Unit       string   `json:"unit,omitempty"`
	Floor      *float64 `json:"floor"`
	PM         *float64 `json:"pm"`
	Supervisor *float64 `json:"supervisor"`
	Runit      *float64 `json:"runit"`
	S6         *float64 `json:"s6"`
	Ratio      *float64 `json:"ratio"` // pm to floor
	// Best is the ratio of the smallest samples. Other work on the machine only
	// ever adds to a time, so this says more than Ratio where there is much.
	Best    *float64 `json:"best_ratio"`
	Wanted  string   `json:"wanted,omitempty"`
	Met     *bool    `json:"met"`
	Samples int      `json:"samples"` // of pm
}

// report is everything that a run tells.
type report struct {
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"`
	Notes   []string  `json:"notes"`
	Rows    []result  `json:"rows"`
}

func (b *bench) report() report {
	r := report{Date: time.Now().UTC().Truncate(time.Second), Machine: machine(), Notes: append([]string{}, b.notes...), Rows: []result{}}
	for _, row := range rows() {
		if samples := b.samples[row.Name]; len(samples) > 0 && b.wants(row.Name) {
			r.Rows = append(r.Rows, row.result(samples))
		}
	}
	return r
}

// result judges a row by the samples of each supervisor.
func (r row) result(samples map[string][]float64) result {
	out := result{
		Name: r.Name, What: r.What, Unit: r.Unit, Wanted: r.wanted(), Samples: len(samples[namePM]),
		Floor: median(samples[nameFloor]), PM: median(samples[namePM]), Supervisor: median(samples[nameSupervisord]),
		Runit: median(samples[nameRunit]), S6: median(samples[nameS6]),
	}
	if out.Floor != nil && out.PM != nil {
		out.Ratio = quotient(*out.PM, *out.Floor)
		out.Best = quotient(slices.Min(samples[namePM]), slices.Min(samples[nameFloor]))
	}
	out.Met = r.met(out)
	return out
}

func quotient(a, b float64) *float64 {
	if b <= 0 {
		return nil
	}
	q := a / b
	return &q
}

func (r row) wanted() string {
	switch {
	case r.Times > 0:
		return "≤ " + number(r.Times) + " × floor"
	case r.AtLeast:
		return number(r.Limit)
	case r.bounded():
		return strings.TrimSpace("≤ " + number(r.Limit) + " " + r.Unit)
	default:
		return ""
	}
}

// bounded tells a limit of none at all from a limit of 0.
func (r row) bounded() bool { return r.Limit > 0 || r.None }

// met reports whether the bound is kept; nil if there is none or no figure.
func (r row) met(f result) *bool {
	var ok bool
	switch {
	case f.PM == nil:
		return nil
	case r.Times > 0:
		if f.Ratio == nil {
			return nil
		}
		ok = *f.Ratio <= r.Times
	case r.AtLeast:
		ok = *f.PM >= r.Limit
	case r.bounded():
		ok = *f.PM <= r.Limit
	default:
		return nil
	}
	return &ok
}

// median returns nil if there is nothing to take it of.
func median(values []float64) *float64 {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (middle + sorted[len(sorted)/2-1]) / 2
	}
	return &middle
}

// number writes three significant digits, and whole numbers from 100 on.
func number(v float64) string {
	digits := 2
	for limit := 1.0; digits > 0 && (v >= limit*10 || v <= -limit*10); limit *= 10 {
		digits--
	}
	text := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

func cell(v *float64) string {
	if v == nil {
		return "–"
	}
	return number(*v)
}

func verdict(met *bool) string {
	switch {
	case met == nil:
		return ""
	case *met:
		return "yes"
	default:
		return "NO"
	}
}

func printTable(w io.Writer, r report) error {
	fmt.Fprintf(w, "%s, %s\n\n", r.Date.Format("2006-01-02"), r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "row\twhat\tunit\tfloor\tpm\tsupervisor\trunit\ts6\tpm/floor\tat best\twanted\tmet")
	for _, x := range r.Rows {
		fmt.Fprintln(t, strings.Join([]string{x.Name, x.What, x.Unit, cell(x.Floor), cell(x.PM), cell(x.Supervisor), cell(x.Runit), cell(x.S6), cell(x.Ratio), cell(x.Best), x.Wanted, verdict(x.Met)}, "\t"))
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("cannot print the table: %w", err)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "\nnote:", note)
	}
	return nil
}

func printJSON(w io.Writer, r report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// machine describes what the figures were measured on.
func machine() string {
	cpu := "unknown CPU"
	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if name, model, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				cpu = strings.TrimSpace(model)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s, %d CPUs, Linux %s, %s, load at the end %s", cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(),
		cmp.Or(strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "), "unknown"))
}
