package subcmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pm.example/socket"
)

// twoLines is a log whose second line has no end yet.
func twoLines(_ context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error {
	return errors.Join(
		emit(socket.LogLine{Schema: 1, Instance: req.Selectors[0], Stream: "stdout", Line: fmt.Sprintf("%d %q %t", req.Lines, req.Stream, req.Follow)}),
		emit(socket.LogLine{Schema: 1, Instance: req.Selectors[len(req.Selectors)-1], Stream: "stderr", Line: "caf\ufffd", Base64: "Y2Fm6Q==", Partial: true}),
	)
}

func TestLogs(t *testing.T) {
	path, _ := (&puppet{status: statusOf(instances()), logs: twoLines}).on(t)
	const unknown = "pm: no such program: nosuch\npm: hint: pm status lists them\n"
	for _, test := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"logs db", 0, "10 \"\" false\ncaf\xe9\n", ""},
		{"tail -f -n 3 db", 0, "3 \"\" true\ncaf\xe9\n", ""},
		{"logs db -fn5 --stderr", 0, "5 \"stderr\" true\ncaf\xe9\n", ""},
		{"logs --stdout -n -1 db", 0, "-1 \"stdout\" false\ncaf\xe9\n", ""},
		{"logs --stdout --stderr db", 0, "10 \"\" false\ncaf\xe9\n", ""},
		{"logs db off", 0, "db | 10 \"\" false\noff | caf\xe9\n", ""},
		{"logs db nosuch", 4, "10 \"\" false\ncaf\xe9\n", unknown},
		{"logs nosuch", 4, "", unknown},
		{
			"logs --json db", 0, `{"schema":1,"instance":"db","stream":"stdout","line":"10 \"\" false"}` + "\n" +
				`{"schema":1,"instance":"db","stream":"stderr","line":"caf` + "\ufffd" + `","base64":"Y2Fm6Q==","partial":true}` + "\n", "",
		},
	} {
		t.Run(test.args, func(t *testing.T) {
			pmOn(t, path, strings.Fields(test.args)...).is(t, test.code, test.stdout, test.stderr)
		})
	}
}

// On a terminal lines begin with their program's color, the same for all its
// instances; what is said about them goes to stderr.
func TestLogPrefixes(t *testing.T) {
	plain, colored := logPrefixes(instances(), false), logPrefixes(instances(), true)
	if plain["web:1"] != "web:1 | " {
		t.Errorf("got %q", plain["web:1"])
	}
	color := func(name string) string { return strings.TrimSuffix(colored[name], name+" |\x1b[0m ") }
	if color("web:0") != color("web:1") || color("web:0") == color("db") || !strings.HasPrefix(colored["db"], "\x1b[") {
		t.Errorf("got %q", colored)
	}
}

func TestLogsTellNotes(t *testing.T) {
	path, _ := (&puppet{status: statusOf(instances()), logs: func(_ context.Context, req socket.LogsRequest, emit func(socket.LogLine) error) error {
		return errors.Join(
			emit(socket.LogLine{Instance: "db", Note: fmt.Sprintf("%d since %d", req.Lines, req.Since.Unix())}),
			emit(socket.LogLine{Instance: "db", Line: "[5 bytes of output are missing here]", Lost: 5}))
	}}).on(t)
	pmOn(t, path, "logs", "--since", "2026-11-22T10:00:00Z", "db").is(t, 0, "[5 bytes of output are missing here]\n", "pm: db: -1 since 1795341600\n")
	pmOn(t, path, "logs", "--since", "2026-11-22T10:00:00Z", "-n", "3", "db").is(t, 0, "[5 bytes of output are missing here]\n", "pm: db: 3 since 1795341600\n")
	if r := pmOn(t, path, "logs", "--since", "soon", "db"); r.code != 2 || !strings.Contains(r.stderr, `--since "soon" is no time`) {
		t.Errorf("got %+v", r)
	}
}
