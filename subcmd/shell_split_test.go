package subcmd

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestSplitLine(t *testing.T) {
	for _, test := range []struct {
		line string
		want string // as %q, or what the error says
	}{
		{"", `[]`},
		{" \t\r ", `[]`},
		{";; ;", `[]`},
		{"status", `[["status"]]`},
		{"status web  db", `[["status" "web" "db"]]`},
		{"stop web; start web", `[["stop" "web"] ["start" "web"]]`},
		{"stop web;start web;", `[["stop" "web"] ["start" "web"]]`},
		{"a\nb\r\nc", `[["a"] ["b"] ["c"]]`},
		{"status # all of them", `[["status"]]`},
		{"# first\nstatus", `[["status"]]`},
		{"status web#1", `[["status" "web#1"]]`},
		{"status ';#'", `[["status" ";#"]]`},
		{"status 'a b' \"c d\"", `[["status" "a b" "c d"]]`},
		{"a'b'\"c\"d", `[["abcd"]]`},
		{"''", `[[""]]`},
		{`"" ''`, `[["" ""]]`},
		{`a\ b \; \'`, `[["a b" ";" "'"]]`},
		{`'a\b'`, `[["a\\b"]]`},
		{`"a\"b\\c\d\$"`, `[["a\"b\\c\\d$"]]`},
		{"web* group:a all", `[["web*" "group:a" "all"]]`},
		{"статус 'ü'", `[["статус" "ü"]]`},
		{"a 'b", "a quote ' has no end"},
		{`a "b`, `a quote " has no end`},
		{`a "b\"`, `a quote " has no end`},
		{`a \`, `a \ stands at the end of the line`},
		{"stop web && start db", "the shell has no &: it only runs commands of pm, with ; between them"},
		{"status | grep web", "the shell has no |: it only runs commands of pm, with ; between them"},
		{"logs web>file", "the shell has no >: it only runs commands of pm, with ; between them"},
		{"stop 'web|db' \\&", `[["stop" "web|db" "&"]]`},
	} {
		commands, err := splitLine(test.line)
		got := fmt.Sprintf("%q", commands)
		if err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%q:\ngot  %s\nwant %s", test.line, got, test.want)
		}
	}
}

func TestQuoteWord(t *testing.T) {
	for word, want := range map[string]string{
		"web:0": "web:0", "web*": "web*", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "#1": "'#1'", "a;b": "'a;b'",
	} {
		if got := quoteWord(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}

// What splits splits the same when its words are written in quotes, and no
// line, nor any part of one, keeps completion from finding where its word begins.
func FuzzSplitLine(f *testing.F) {
	for _, line := range []string{"", "a b;c", `a\ b 'c d' "e\"f"`, "# c\nd", "a 'b", "x|y", "ü\x00\xff", ";\r\n;"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		commands, err := splitLine(line)
		var s shellScan
		scanErr := s.scan(line)
		if (scanErr == nil) != (err == nil) || s.start > len(line) {
			t.Fatalf("%q: %v, but %v; word at %d", line, err, scanErr, s.start)
		}
		if err != nil {
			return
		}
		var lines []string
		for _, words := range commands {
			var quoted []string
			for _, word := range words {
				quoted = append(quoted, quoteWord(word))
			}
			lines = append(lines, strings.Join(quoted, " "))
		}
		again, err := splitLine(strings.Join(lines, ";"))
		if err != nil || !reflect.DeepEqual(again, commands) {
			t.Errorf("%q is %q, but %q is %q, %v", line, commands, strings.Join(lines, ";"), again, err)
		}
	})
}
