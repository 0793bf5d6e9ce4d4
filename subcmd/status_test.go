package subcmd

import (
	"encoding/json"
	"strings"
	"testing"

	"pm.example/socket"
)

func TestStatus(t *testing.T) {
	path, _ := (&puppet{status: statusOf(instances())}).on(t)
	const (
		heading = "NAME   STATE    PID      UPTIME  RESTARTS  EXIT     DETAIL\n"
		db      = "db  RUNNING  5000001  2h03m  0  -\n"
		unknown = "pm: no such program: nosuch\npm: hint: pm status lists them\n"
	)
	for _, test := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"status", 3, heading + `db     RUNNING  5000001  2h03m   0         -
job    EXITED   -        -       0         0
off    STOPPED  -        -       0         -
web:0  RUNNING  5000002  59s     12        SIGKILL
web:1  FATAL    -        -       3         3        exited too quickly (exit 3)
`, ""},
		{"status -o plain db", 0, db, ""},
		{"status db -o plain", 0, db, ""},
		{"ls -o plain db", 0, db, ""},
		{"list --output=plain db", 0, db, ""},
		{"ps -q web db", 3, "db\nweb:0\nweb:1\n", ""},
		{"status -q web:0", 0, "web:0\n", ""},
		{"status -q job off", 0, "job\noff\n", ""},
		{"status nosuch", 4, "", unknown},
		{"status -o plain nosuch db", 4, db, unknown},
		{"status -q web nosuch", 4, "web:0\nweb:1\n", unknown},
		{"status --tasks -o plain off web:1", 3, "off    STOPPED  -  -  0  -  -          -\nweb:1  FATAL    -  -  3  3  web:1.x-4  TASK_FAILED  exited too quickly (exit 3)\n", ""},
		// The pid is none that a machine has, so that there is nothing to tell of it.
		{"status -o wide db", 0, "NAME  STATE    PID      UPTIME  RESTARTS  EXIT  CPU  MEMORY  DETAIL\ndb    RUNNING  5000001  2h03m   0         -     -    -\n", ""},
		{"avail", 0, "db\njob\noff\nweb:0\nweb:1\n", ""},
		{"pid", 0, "5000077\n", ""},
		{"pid db", 0, "5000001\n", ""},
		{"pid web nosuch", 4, "5000002\n0\n", unknown},
		{"pid web", 3, "5000002\n0\n", ""},
	} {
		t.Run(test.args, func(t *testing.T) {
			pmOn(t, path, strings.Fields(test.args)...).is(t, test.code, test.stdout, test.stderr)
		})
	}
}

// The fields are a promise: DESIGN names them, scripts rely on them.
func TestStatusJSON(t *testing.T) {
	path, _ := (&puppet{status: statusOf(instances())}).on(t)
	for _, args := range []string{"status --json", "status -o json", "status -o json --tasks -q"} {
		r := pmOn(t, path, append(strings.Fields(args), "web:0", "off")...)
		r.is(t, 0, `{"schema":1,"daemon":{"pid":5000077,"keeper":5000077,"version":"1.2.3","config":"/etc/pm/pm.toml","uptime_seconds":0},"instances":[`+
			`{"name":"off","program":"off","state":"STOPPED","task":null,"since":"2026-05-01T12:00:00Z","uptime_seconds":0,"restarts":0,"ready":null,"healthy":null,"desired":"stopped","exit":null,"ok":true},`+
			`{"name":"web:0","program":"web","state":"RUNNING","task":{"id":"web:0.x-13","state":"TASK_RUNNING"},"pid":5000002,"since":"2026-05-01T12:00:00Z","uptime_seconds":59.4,"restarts":12,"ready":null,"healthy":false,"desired":"running","exit":{"code":-1,"signal":"KILL","time":"2026-05-01T12:00:00Z","expected":false},"ok":true}]}`+"\n", "")
	}
	r := pmOn(t, path, "status", "--json", "nosuch")
	var got socket.Status
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Instances == nil || r.code != 4 {
		t.Errorf("exit %d, %v: no list of instances in %s", r.code, err, r.stdout)
	}
}

// A daemon that refuses is told as it says, with its code.
func TestStatusRefused(t *testing.T) {
	path, _ := (&puppet{status: func([]string) (socket.Status, error) {
		return socket.Status{}, &socket.Problem{Message: "cannot do it", Hint: "do that", Code: socket.CodePermission}
	}}).on(t)
	for _, args := range []string{"status", "status --watch", "pid", "avail", "logs web", "shutdown"} {
		pmOn(t, path, strings.Fields(args)...).is(t, socket.CodePermission, "", "pm: cannot do it\npm: hint: do that\n")
	}
}
