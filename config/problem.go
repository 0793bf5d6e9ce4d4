package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one fault of a configuration, with its place.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`   // 0: the fault belongs to no line
	Column  int    `json:"column,omitempty"` // in characters, from 1
	Key     string `json:"key,omitempty"`    // for example programs.web.umask
	Value   string `json:"value,omitempty"`  // as it stands in the file; empty for values that may be secret
	Message string `json:"message"`
	// Accepted says what would have been right.
	Accepted string `json:"accepted,omitempty"`
	// Suggestion says what to write instead.
	Suggestion string `json:"suggestion,omitempty"`
}

// String tells the problem in one line: place, key, value, what is wrong and
// what is accepted.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.place() + ": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	if p.Value != "" {
		fmt.Fprintf(&b, "%q: ", p.Value)
	}
	b.WriteString(p.Message)
	if hint := p.hint(); hint != "" {
		b.WriteString(" (" + hint + ")")
	}
	return oneLine(b.String())
}

// oneLine shows control characters as escapes: a message may quote what stands
// in a file or in the environment.
func oneLine(text string) string {
	if !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var b strings.Builder
	for _, c := range text {
		if unicode.IsControl(c) {
			quoted := strconv.QuoteRune(c)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

func (p Problem) place() string { return pos{p.File, p.Line, p.Column}.String() }

func (p Problem) hint() string {
	if p.Accepted != "" && p.Suggestion != "" {
		return "accepted: " + p.Accepted + "; " + p.Suggestion
	}
	if p.Accepted != "" {
		return "accepted: " + p.Accepted
	}
	return p.Suggestion
}

// Errors is every fault of a configuration, in the order of their places.
type Errors struct{ Problems []Problem }

// Error tells each problem on a line of its own.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// pos is a place in a file.
type pos struct {
	file         string
	line, column int
}

func (p pos) String() string {
	if p.line == 0 {
		return p.file
	}
	return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column)
}

// inOrder sorts problems by place, keeping the files in the order they were
// read in.
func inOrder(problems []Problem) []Problem {
	files := map[string]int{}
	for _, p := range problems {
		if _, seen := files[p.File]; !seen {
			files[p.File] = len(files)
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		if a.File != b.File {
			return files[a.File] - files[b.File]
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return problems
}

// habits are the names that other supervisors give to pm's keys.
var habits = map[string]string{
	"args": "cmd", "command": "cmd", "exec": "cmd", "execstart": "cmd", "run": "cmd",
	"instances": "numprocs", "processes": "numprocs", "replicas": "numprocs",
	"chdir": "workingdir", "cwd": "workingdir", "dir": "workingdir", "directory": "workingdir", "working_dir": "workingdir",
	"restart": "autorestart", "restart_policy": "autorestart",
	"success_exit_status": "exitcodes",
	"maxretries":          "startretries", "retries": "startretries",
	"startsecs": "starttime", "kill_signal": "stopsignal",
	"kill_timeout": "stoptime", "stopwaitsecs": "stoptime",
	"environment": "env", "environment_file": "env_file",
	"stdout_logfile": "stdout", "stderr_logfile": "stderr",
	"logfile": "log_file", "program": "programs", "services": "programs",
}

// didYouMean suggests the one of known that was probably meant by word, or
// nothing. What other supervisors call a key counts as its name.
func didYouMean(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", len(word)/3+1
	if len(word) > 4 {
		least = max(least, 3)
	}
	for _, name := range known {
		if d := distance(word, name); d < least && d < len(name) {
			best, least = name, d
		}
	}
	for _, habit := range slices.Sorted(maps.Keys(habits)) {
		if d := distance(word, habit); d < least && slices.Contains(known, habits[habit]) {
			best, least = habits[habit], d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance is the number of single characters to insert, remove, replace or
// swap with their neighbour to turn a into b. Words longer than any key are
// not compared.
func distance(a, b string) int {
	if len(a) > 100 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			rows[i][j] = i + j // right for the first row and column
			if i > 0 && j > 0 {
				rows[i][j] = step(rows, a, b, i, j)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// step is the distance of a's first i from b's first j characters, when those
// of all shorter beginnings are known.
func step(rows [][]int, a, b string, i, j int) int {
	replace := rows[i-1][j-1]
	if a[i-1] != b[j-1] {
		replace++
	}
	d := min(replace, rows[i-1][j]+1, rows[i][j-1]+1)
	if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
		d = min(d, rows[i-2][j-2]+1)
	}
	return d
}
