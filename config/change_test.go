package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// plan is Diff's answer, a line for each instance.
func plan(t *testing.T, old, updated string) []string {
	t.Helper()
	var lines []string
	for _, a := range Diff(mustParse(t, "old.toml", old), mustParse(t, "new.toml", updated)) {
		line := fmt.Sprintf("%s %s", a.Kind, a.Instance)
		if len(a.Reasons) > 0 {
			line += ": " + strings.Join(a.Reasons, "; ")
		}
		lines = append(lines, line)
	}
	return lines
}

func TestDiff(t *testing.T) {
	const web = "[programs.web]\ncmd = \"true\"\n"
	for _, c := range []struct {
		name, old, updated string
		want               []string
	}{
		{"same", web, web, []string{"keep web"}},
		{"same, written otherwise", web, "[programs.web]\ncmd = [\"true\"]\nexitcodes = [0]\nstoptime = 10\n", []string{"keep web"}},
		{"live", web, web + "stoptime = 3\npriority = 1\n", []string{`live web: priority: 999 -> 1; stoptime: "10s" -> "3s"`}},
		{"respawn", web + `umask = "022"`, web + `umask = "077"`, []string{`respawn web: umask: "022" -> "077"`}},
		{"respawn wins", web, web + "stoptime = 3\nworkingdir = \"/\"\n", []string{`respawn web: stoptime: "10s" -> "3s"; workingdir: unset -> "/"`}},
		{"output", web, web + "stdout = \"/tmp/x\"\n", []string{`respawn web: stdout: unset -> "/tmp/x"`}},
		{
			"env names only", web + `env = { A = "1", B = "s", C = "3" }`, web + `env = { A = "1", B = "t", D = "4" }`,
			[]string{"respawn web: env: B changed; env: C removed; env: D added"},
		},
		{
			"labels", web + `labels = { a = "1", token = "x" }`, web + `labels = { a = "2", token = "y" }`,
			[]string{`live web: labels.a: "1" -> "2"; labels: token changed`},
		},
		{"cmd", web, "[programs.web]\ncmd = \"false\"\n", []string{`respawn web: cmd: "true" -> "false"`}},
		{"cmd with a secret", web, "[programs.web]\ncmd = \"true --password=x\"\n", []string{`respawn web: cmd: changed`}},
		{"rotation begins", web + "stdout = \"/x\"\n", web + "stdout = \"/x\"\nlogs.rotate = 5\n", []string{`respawn web: logs.rotate: unset -> "5"`}},
		{"rotation ends", web + "stdout = \"/x\"\nlogs.rotate_age = 5\n", web + "stdout = \"/x\"\n", []string{`respawn web: logs.rotate_age: "5s" -> unset`}},
		{"rotation changes", web + "stdout = \"/x\"\nlogs.rotate = 5\n", web + "stdout = \"/x\"\nlogs.rotate_age = 5\n", []string{`live web: logs.rotate: "5" -> unset; logs.rotate_age: unset -> "5s"`}},
		{"rotation of nothing", web, web + "logs.rotate = 5\n", []string{`live web: logs.rotate: unset -> "5"`}},
		{"limits", web, web + "limits.nofile = 5\n", []string{`respawn web: limits.nofile: unset -> 5`}},
		{
			"added, removed", "[programs.a]\ncmd = \"a\"\nnumprocs = 2\n", "[programs.b]\ncmd = \"b\"\n",
			[]string{"stop a:0: program removed", "stop a:1: program removed", "start b: program added"},
		},
		{"grow", web + "numprocs = 2\n", web + "numprocs = 3\n", []string{"keep web:0", "keep web:1", "scale web:2: numprocs: 2 -> 3"}},
		{"shrink", web + "numprocs = 3\n", web + "numprocs = 2\n", []string{"keep web:0", "keep web:1", "scale web:2: numprocs: 3 -> 2"}},
		{"grow from one", web, web + "numprocs = 2\n", []string{"keep web:0: renamed from web by numprocs: 1 -> 2", "scale web:1: numprocs: 1 -> 2"}},
		{"shrink to one", web + "numprocs = 2\n", web, []string{"keep web: renamed from web:0 by numprocs: 2 -> 1", "scale web:1: numprocs: 2 -> 1"}},
		{"none", web, web + "numprocs = 0\n", []string{"scale web: numprocs: 1 -> 0"}},
		{
			"grow and live", web + "numprocs = 2\n", web + "numprocs = 3\nstoptime = 3\n",
			[]string{`live web:0: stoptime: "10s" -> "3s"`, `live web:1: stoptime: "10s" -> "3s"`, "scale web:2: numprocs: 2 -> 3"},
		},
	} {
		if got := plan(t, c.old, c.updated); !slices.Equal(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
}

func TestDiffKeepsIdentity(t *testing.T) {
	const web = "[programs.web]\ncmd = \"true\"\n"
	actions := Diff(mustParse(t, "x.toml", web), mustParse(t, "x.toml", web+"numprocs = 2\n"))
	first := actions[0]
	if first.Was != "web" || first.Instance != "web:0" || first.Index != 0 || first.Program != "web" || first.Kind != Keep {
		t.Errorf("got %+v", first)
	}
	if actions[1].Was != "" || actions[1].Index != 1 {
		t.Errorf("got %+v", actions[1])
	}
}

// TestEveryKeyIsCompared changes each key in turn: none may go unnoticed.
func TestEveryKeyIsCompared(t *testing.T) {
	other := map[string]string{
		"cmd": "x", "type": "oneshot", "numprocs": "2", "priority": "1", "group": "g", "autostart": "false", "on_daemon_death": "stop", "autorestart": "always",
		"exitcodes": "1", "startretries": "1", "starttime": "9s", "stopsignal": "INT", "stoptime": "9s", "umask": "1", "workingdir": "/",
		"user": "0", "stdin": "/x", "stdout": "/x", "stderr": "/x", "env": "A=1", "env_file": "/x", "labels": "a=1",
		"backoff.initial": "2s", "backoff.max": "2m", "backoff.factor": "3", "backoff.jitter": "0.5", "backoff.reset_after": "9s",
		"backoff.burst": "9", "backoff.burst_window": "9s", "kill.sequence": "INT 1s", "kill.exclude": "x",
		"logs.rotate": "1M", "logs.rotate_age": "24h", "logs.files": "9", "logs.total": "1G",
		"logs.timestamps": "UTC", "logs.prefix": "x", "logs.format": "json", "logs.on_full": "drop", "logs.compress": "true",
		"logs.scrape.to": "tcp://a:1", "logs.scrape.format": "json", "logs.scrape.invalid": "drop", "logs.scrape.ignore_keys": "a",
		"logs.scrape.fields": "A=1", "logs.scrape.rename": "A=b", "logs.scrape.system": "true", "logs.scrape.max_line": "2M",
		"logs.scrape.size_limit": "1K", "logs.scrape.rate_limit": "5", "logs.scrape.buffer": "2M", "logs.scrape.resend": "2M",
		"logs.scrape.on_full": "drop", "logs.scrape.spool": "/spool", "logs.scrape.spool_size": "2G", "logs.scrape.linger": "5s",
	}
	for _, f := range Fields() {
		value, ok := other[f.Key]
		if !ok && strings.HasPrefix(f.Key, "limits.") {
			value = "7"
		} else if !ok {
			t.Errorf("%s: no other value in the test", f.Key)
			continue
		}
		old, updated := NewProgram("x"), NewProgram("x")
		if err := f.SetString(updated, []string{value}); err != nil {
			t.Error(err)
		}
		want := f.Requires
		if want == Scale {
			want = Keep
		}
		actions := Diff(&File{Programs: []*Program{old}}, &File{Programs: []*Program{updated}})
		if actions[0].Kind != want || len(actions[0].Reasons) == 0 {
			t.Errorf("%s: got %+v, want %s", f.Key, actions[0], want)
		}
	}
}

func TestDiffDaemon(t *testing.T) {
	old := mustParse(t, "x.toml", "[programs]\n")
	updated := mustParse(t, "x.toml", "[programs]\n[daemon]\nsocket = \"/x\"\nlog_file = \"/y\"\n[email]\nto = \"a@b\"\n")
	var got []string
	for _, c := range DiffDaemon(old, updated) {
		got = append(got, fmt.Sprintf("%s %s", c.Requires, c.Reason))
	}
	want := []string{`restart daemon.socket: unset -> "/x"`, `restart daemon.log_file: unset -> "/y"`, `live email.to: unset -> ["a@b"]`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
