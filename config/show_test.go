package config

import (
	"encoding/json"
	"os"
	"reflect"
	"testing"
)

// everything has a value for each kind of key, and texts that need escapes.
const everything = `
[daemon]
socket = "/run/x y.sock"
log_format = "json"
[email]
to = ["a@b", "c@d"]
max_per_hour = 3
[programs.web]
cmd = ['a b', "it's", '"q"', '$${X}', 'a\b', '', "new\nline\ttab\u007f", "~", "$HOME", "a$$", "#x"]
numprocs = 3
umask = "007"
exitcodes = [0, "HUP"]
startretries = "unlimited"
starttime = 0.25
env = { A = "x$${Y}", "odd key" = "é", E = "" }
env_file = ["-a", "b"]
labels = { "a.b" = "c" }
limits = { nofile = "1:2", core = "unlimited", nice = -3 }
backoff.factor = 1
kill.sequence = ["INT 5s", "TERM 1m30s"]
kill.exclude = ["a", "b"]
[programs.empty]
cmd = "true"
exitcodes = []
numprocs = 0
`

func TestTOMLMeansTheSame(t *testing.T) {
	texts := map[string]string{"everything.toml": everything, "none.toml": "[programs]\n"}
	for _, name := range []string{"taskmaster.yaml", "full.toml", "quickstart.toml"} {
		data, err := os.ReadFile("../examples/" + name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(data)
	}
	for name, text := range texts {
		f := mustParse(t, name, text)
		shown, err := f.TOML()
		if err != nil {
			t.Fatal(err)
		}
		again := mustParse(t, "shown.toml", string(shown))
		again.Path, again.places, f.places = f.Path, nil, nil
		if !reflect.DeepEqual(f, again) {
			t.Errorf("%s: %+v\nbecame %+v\nthrough\n%s", name, f.Programs[0], again.Programs[0], shown)
		}
	}
}

// TestJSONMeansTheSame reads the JSON as what it is too: YAML.
func TestJSONMeansTheSame(t *testing.T) {
	f := mustParse(t, "x.yaml", `{programs: {web: {cmd: "a 'b c'", umask: 022, exitcodes: [0, 2], env: {A: 1}, numprocs: 2}}}`)
	shown, err := f.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again := mustParse(t, "shown.json", string(shown))
	if !reflect.DeepEqual(f.Programs, again.Programs) {
		t.Errorf("got %+v\nthrough %s", again.Programs[0], shown)
	}
}

func TestJSONShape(t *testing.T) {
	data, err := os.ReadFile("../examples/taskmaster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := mustParse(t, "taskmaster.yaml", string(data)).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var root struct {
		Programs map[string]struct {
			Cmd       string
			ExitCodes []any
			Umask     string
			Env       map[string]string
			Backoff   map[string]any
		}
	}
	if err := json.Unmarshal(shown, &root); err != nil {
		t.Fatal(err)
	}
	nginx := root.Programs["nginx"]
	if nginx.Cmd != "/usr/local/bin/nginx -c /etc/nginx/test.conf" || !reflect.DeepEqual(nginx.ExitCodes, []any{0.0, 2.0}) ||
		nginx.Umask != "022" || nginx.Env["ANSWER"] != "42" || nginx.Backoff["initial"] != "1s" {
		t.Errorf("got %+v from\n%s", nginx, shown)
	}
}

func TestShownTOML(t *testing.T) {
	f := mustParse(t, "x.toml", "[programs.web]\ncmd = \"echo a\"\numask = \"022\"\nlimits.nofile = 10\nenv = { B = \"2\", A = \"1\" }\n")
	shown, err := f.TOML()
	if err != nil {
		t.Fatal(err)
	}
	want := `[daemon]
log = "stderr"
log_format = "text"

[programs.web]
cmd = "echo a"
type = "service"
numprocs = 1
priority = 999
autostart = true
on_daemon_death = "keep"
autorestart = "unexpected"
exitcodes = [0]
startretries = 3
starttime = "1s"
stopsignal = "TERM"
stoptime = "10s"
umask = "022"
logs.files = 5
logs.timestamps = "off"
logs.format = "raw"
logs.compress = false
logs.on_full = "block"
logs.scrape.format = "auto"
logs.scrape.invalid = "wrap"
logs.scrape.system = false
logs.scrape.max_line = "1M"
logs.scrape.rate_limit = 0
logs.scrape.buffer = "1M"
logs.scrape.resend = "8M"
logs.scrape.on_full = "block"
logs.scrape.spool_size = "1G"
logs.scrape.linger = "10s"
limits.nofile = 10
backoff.initial = "1s"
backoff.max = "1m"
backoff.factor = 2.0
backoff.jitter = 0.1
backoff.reset_after = "1m"
backoff.burst = 5
backoff.burst_window = "10s"

[programs.web.env]
A = "1"
B = "2"
`
	if got := string(shown); got != want {
		t.Errorf("got\n%s", got)
	}
}
