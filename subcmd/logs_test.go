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
			"logs --json db", 0, `{"schema":1,"time":"0001-01-01T00:00:00Z","instance":"db","stream":"stdout","line":"10 \"\" false"}` + "\n" +
				`{"schema":1,"time":"0001-01-01T00:00:00Z","instance":"db","stream":"stderr","line":"caf` + "\ufffd" + `","base64":"Y2Fm6Q==","partial":true}` + "\n", "",
		},
	} {
		t.Run(test.args, func(t *testing.T) {
			pmOn(t, path, strings.Fields(test.args)...).is(t, test.code, test.stdout, test.stderr)
		})
	}
}
