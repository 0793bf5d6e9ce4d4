package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pm.example/socket"
)

// inMemory is how long after the disk was full lines may be in memory only, and
// lost if the worker is killed: pm tries every second, when there is a line.
const inMemory = 5 * time.Second

// How many of the last lines of each instance are compared after a round, and
// every how many rounds all are.
const (
	lastLines = 500
	allLines  = 50
)

// compareLines demands that pm logs prints what the witnesses have printed: each
// line once, whole and in order.
func (j *judge) compareLines(present map[string]*socket.Instance) {
	printed := map[string]int{}
	for name, i := range present {
		printed[name] = len(j.printed(name))
		if j.mayMiss(i) {
			j.floor[name] = printed[name]
		}
	}
	faults := j.faultyLines(printed)
	// On a busy machine pm may hear of a pipe when its program has printed already.
	for deadline := time.Now().Add(tellPatience); len(faults) > 0 && time.Now().Before(deadline); faults = j.faultyLines(printed) {
		<-time.After(pollEvery)
	}
	for name, fault := range faults {
		j.t.Errorf("round %d: the lines of %s: %s", j.round, name, fault)
	}
}

// faultyLines returns what is wrong with the lines that pm has of each instance,
// which must hold as many as were printed.
func (j *judge) faultyLines(must map[string]int) map[string]string {
	n := lastLines
	if j.round%allLines == 0 {
		n = -1
	}
	faults, kept := map[string]string{}, j.kept(n)
	for name, must := range must {
		floor, printed := j.floor[name], j.printed(name)
		p := printout{lines: printed[floor:], must: must - floor, unheard: j.unheard[name]}
		whole := n < 0 && floor == 0 && len(p.lines) < 5*lastLines // of those that print much the first are gone
		list := sinceFloor(kept[name], printed, floor)
		if n < 0 && !whole && len(list) > 0 {
			list = list[1:] // of which the beginning may be gone
		}
		if fault := p.compare(list, whole); fault != "" {
			faults[name] = fault
		}
	}
	return faults
}

// mayMiss reports whether lines of an instance may have been lost in the round, or
// are out of order: they were in memory only when the worker was killed, or there
// was no descriptor for their pipe.
func (j *judge) mayMiss(i *socket.Instance) bool {
	died := j.blind || j.struck[keeper]+j.struck[worker] > 0
	if died && j.lacked[noFiles] && i.PID != 0 {
		j.lose(run{i.Name, i.PID}) // a new keeper may not have got hold of its pipe
	}
	return died && (j.lacked[noFiles] || time.Since(j.diskFull) < inMemory)
}

// sinceFloor returns the kept lines without those printed before the floor. Where
// the rest of one of these was lost, a later one may stand behind its beginning.
func sinceFloor(kept, printed []string, floor int) (list []string) {
	if floor == 0 {
		return kept
	}
	place := make(map[string]int, len(printed)) // no line is printed twice
	for n, line := range printed {
		place[line] = n
	}
	for _, line := range kept {
		n, ok := place[line]
		if !ok {
			if n = slices.IndexFunc(printed, func(p string) bool { return strings.HasSuffix(line, p) }); n >= 0 {
				line = printed[n]
			}
		}
		if n < 0 || n >= floor {
			list = append(list, line)
		}
	}
	return list
}

// printed returns the lines that the witnesses of an instance have written down.
func (j *judge) printed(instance string) []string {
	data, err := os.ReadFile(j.file(instance, ".out"))
	if err != nil && !os.IsNotExist(err) {
		j.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[:strings.Count(string(data), "\n")]
}

// kept returns the last lines of all instances that pm has.
func (j *judge) kept(n int) map[string][]string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	kept := map[string][]string{}
	err := j.client.Logs(ctx, socket.LogsRequest{Selectors: []string{"all"}, Lines: n, Stream: "stdout"}, func(l socket.LogLine) error {
		text := l.Line
		if l.Partial {
			text += " (torn)"
		}
		kept[l.Instance] = append(kept[l.Instance], text)
		return nil
	})
	if err != nil {
		j.t.Errorf("round %d: pm logs: %v", j.round, err)
	}
	for name, prefix := range written {
		if _, present := kept[name]; present {
			lines := j.inFiles(name, prefix)
			if n >= 0 {
				lines = lines[max(0, len(lines)-n):]
			}
			kept[name] = lines
		}
	}
	return kept
}

// written are the programs whose lines pm writes into files, of which these are
// read in place of pm logs, with what stands before each line.
var written = map[string]string{"rotated": "", "prefixed": "prefixed/stdout: "}

// inFiles returns the lines in the files of a program, without their prefix.
func (j *judge) inFiles(program, prefix string) (lines []string) {
	name := filepath.Join(j.dir, program+".log")
	var text strings.Builder
	for n := 9; n >= 0; n-- {
		path := fmt.Sprintf("%s.%d", name, n)
		if n == 0 {
			path = name
		}
		data, _ := os.ReadFile(path) // one that is just being renamed is there at the next look
		text.Write(data)
	}
	for line := range strings.Lines(text.String()) {
		line, whole := strings.CutSuffix(line, "\n")
		line, right := strings.CutPrefix(line, prefix)
		if !whole || !right {
			line += " (torn)"
		}
		lines = append(lines, line)
	}
	return lines
}

// printout is what the witnesses of an instance have printed.
type printout struct {
	lines []string
	must  int // the first lines, which are old enough to be kept
	// unheard are processes of which the last lines may be lost: they have ended
	// when nobody of the daemon lived, and their pipe with them.
	unheard map[string]bool
}

// compare returns what is wrong with the lines that pm has kept: with whole, all
// that were printed should be.
func (p printout) compare(kept []string, whole bool) string {
	if len(kept) == 0 {
		return p.follow(nil, 0)
	}
	worst := "begin with " + kept[0] + ", which was not printed"
	for at := range p.lines {
		if p.lines[at] != kept[0] {
			continue
		}
		if worst = p.follow(kept, at); worst != "" {
			continue
		}
		if !whole || p.skip(0) >= at {
			return ""
		}
		worst = "begin with " + kept[0] + ", and more was printed before"
	}
	return worst
}

// follow compares kept lines with those printed from the given place on.
func (p printout) follow(kept []string, at int) string {
	for _, line := range kept {
		for at < len(p.lines) && p.lines[at] != line {
			next := p.skip(at)
			if next == at {
				return "have " + line + " where " + p.lines[at] + " was printed"
			}
			at = next
		}
		if at == len(p.lines) {
			return "have " + line + " after the last that was printed"
		}
		at++
	}
	for at < p.must {
		next := p.skip(at)
		if next == at {
			return "lack " + p.lines[at]
		}
		at = next
	}
	return ""
}

// skip returns the place after the lines from at on that need not be there: the
// last of a run, that may have been killed before it came to print it, and those
// that were lost.
func (p printout) skip(at int) int {
	pid, _, _ := strings.Cut(strings.ReplaceAll(p.lines[at], ".", " "), " ")
	switch {
	case p.lastOfRun(at):
		return at + 1
	case p.unheard[pid]:
		for !p.lastOfRun(at) {
			at++
		}
		return at + 1
	}
	return at
}

// lastOfRun reports whether another process has printed the next line, or nobody.
func (p printout) lastOfRun(at int) bool {
	return at+1 == len(p.lines) || strings.HasSuffix(p.lines[at+1], " 1")
}

func TestCompareLines(t *testing.T) {
	printed := []string{"7 1", "7 2", "7 3", "8 1", "8 2", "8 3", "9 1", "9 2"}
	for _, test := range []struct {
		kept  string
		fault string // of its beginning; empty: none
	}{
		{"7 1,7 2,7 3,8 1,8 2,8 3,9 1,9 2", ""},
		{"8 1,8 2,8 3,9 1", ""},              // older ones are gone, and the last is being printed
		{"7 1,7 2,8 1,9 1,9 2", ""},          // 7 was killed before it printed the third, 8 while nobody listened
		{"8 1,8 3,9 1", "have 8 3"},          // a hole, although its end may be lost
		{"7 1,7 3,8 1,9 1,9 2", "have 7 3"},  // lost
		{"7 1,8 1,8 2,8 3,9 1", "have 8 1"},  // lost at the end
		{"7 1,7 2,7 2,8 1,8 2", "have 7 2"},  // doubled
		{"7 1,7 2,8 2,8 1,8 3", "have 8 2"},  // out of order
		{"7 1,7 2,7 3,8 1 (torn)", "have 8"}, // torn
		{"5 1", "begin with 5 1"},
		{"7 1,7 2,7 3", "lack 9 1"},
		{"", "lack 7 1"},
		{"9 1,9 2,9 3", "have 9 3 after the last"},
	} {
		var kept []string
		if test.kept != "" {
			kept = strings.Split(test.kept, ",")
		}
		p := printout{lines: printed, must: len(printed), unheard: map[string]bool{"8": true}}
		if got := p.compare(kept, false); !strings.HasPrefix(got, test.fault) || (got == "") != (test.fault == "") {
			t.Errorf("%s: got %q, want %q", test.kept, got, test.fault)
		}
	}
	if got := (printout{lines: printed, must: len(printed)}).compare(printed[3:], true); got != "begin with 8 1, and more was printed before" {
		t.Errorf("a beginning is missing: %q", got)
	}
}
