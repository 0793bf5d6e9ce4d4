package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// converted converts a text and reads the result.
func converted(t *testing.T, name, text, format string, env ...string) (*File, string, []string) {
	t.Helper()
	toml, warnings, err := Convert(name, []byte(text), format)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, "converted.toml", string(toml), env...), string(toml), texts(warnings)
}

func TestConvertTaskmaster(t *testing.T) {
	data, err := os.ReadFile("../examples/taskmaster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, text, warnings := converted(t, "taskmaster.yaml", string(data), "")
	want := mustParse(t, "taskmaster.yaml", string(data))
	if !reflect.DeepEqual(f.Programs, want.Programs) || len(warnings) > 0 {
		t.Errorf("got %+v, %q from\n%s", f.Programs[0], warnings, text)
	}
	const nginx = `# Converted from "taskmaster.yaml".

[programs.nginx]
cmd = "/usr/local/bin/nginx -c /etc/nginx/test.conf"
exitcodes = [0, 2]
starttime = "5s"
umask = "022"
workingdir = "/tmp"
stdout = "/tmp/nginx.stdout"
stderr = "/tmp/nginx.stderr"

[programs.nginx.env]
ANSWER = "42"
STARTED_BY = "taskmaster"
`
	if !strings.HasPrefix(text, nginx) {
		t.Errorf("got\n%s", text)
	}
}

func TestConvertKeepsReferences(t *testing.T) {
	const text = "include: [more/*.yaml]\nemail: a@b\nlogout: ${LOGS:-/var/log}/tm.log\nport: 1\nprograms:\n  web:\n    cmd: run ${ARG:-a b} '$${X}'\n    env: {A: '$$ ${B}'}\n"
	toml, warnings, err := Convert("tm.yaml", []byte(text), "")
	if err != nil || len(warnings) != 2 {
		t.Fatal(err, warnings)
	}
	if !strings.HasPrefix(string(toml), "# Converted from \"tm.yaml\".\ninclude = [\"more/*.yaml\"]\n") && !strings.Contains(string(toml), "\ninclude = [\"more/*.yaml\"]\n") {
		t.Errorf("include is lost:\n%s", toml)
	}
	without := func(s string) string {
		return strings.NewReplacer("include: [more/*.yaml]\n", "", "port: 1\n", "", "include = [\"more/*.yaml\"]\n", "").Replace(s)
	}
	f, want := mustParse(t, "a.toml", without(string(toml)), "B=b"), mustParse(t, "a.yaml", without(text), "B=b")
	if !reflect.DeepEqual(f.Programs, want.Programs) || !reflect.DeepEqual(f.Email, want.Email) || f.Daemon != want.Daemon {
		t.Errorf("got  %+v %+v %+v\nwant %+v %+v %+v", f.Programs[0], f.Email, f.Daemon, want.Programs[0], want.Email, want.Daemon)
	}
}

const supervisordConf = `; supervisor's own example, more or less
[unix_http_server]
file=/tmp/supervisor.sock   ; the path to the socket file
chmod=0700

[inet_http_server]
port=127.0.0.1:9001

[supervisord]
logfile=/var/log/supervisord.log
nodaemon=false
user=root
umask=022
environment=SHARED="1",PATH="/usr/bin"

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[program:web]
command=/usr/bin/web --name=%(program_name)s --token=%(ENV_TOKEN)s
  --literal='$${X}' --percent=100%%
process_name=%(program_name)s_%(process_num)02d
numprocs=4
priority=10
autostart=false
autorestart=true
startsecs=5
startretries=7
exitcodes=0,2
stopsignal=QUIT
stopwaitsecs=20
stopasgroup=true
user=root
directory=/srv/%(group_name)s
stdout_logfile=/var/log/web.log
redirect_stderr=true
stderr_logfile=/var/log/ignored.log
environment=A="1, 2",B='x',C=%(here)s,PATH="/bin"
stdout_logfile_maxbytes=1MB
stdout_logfile_backups=3
umask=077

[program:job]
command=/usr/bin/job
stdout_logfile=NONE
stderr_logfile=AUTO

[program:plain]
command=/usr/bin/plain
stderr_logfile=/var/log/plain.log

[eventlistener:mem]
command=memmon

[group:site]
programs=web, other
priority=5

[include]
files = conf.d/*.conf
`

func TestConvertSupervisord(t *testing.T) {
	f, text, warnings := converted(t, "supervisord.conf", supervisordConf, "", "TOKEN=a b")
	web := NewProgram("web")
	web.Cmd = []string{"/usr/bin/web", "--name=web", "--token=a b", "--literal=$${X}", "--percent=100%"}
	web.NumProcs, web.Priority, web.Autostart, web.Autorestart = 4, 10, false, "always"
	web.StartTime, web.StartRetries, web.StopTime, web.StopSignal = 5*time.Second, 7, 20*time.Second, "QUIT"
	web.ExitCodes = []Exit{{Code: 0}, {Code: 2}}
	web.User, web.WorkingDir, web.Group = "root", "/srv/site", "site"
	web.Stdout, web.Stderr = "/var/log/web.log", "stdout"
	web.Logs.Rotate, web.Logs.Files = 1<<20, 3
	web.Umask = new(0o077)
	web.Env = map[string]string{"SHARED": "1", "A": "1, 2", "B": "x", "C": "%(here)s", "PATH": "/bin"}
	job := NewProgram("job")
	job.Cmd = []string{"/usr/bin/job"}
	job.Stdout = "discard"
	job.Umask = new(0o022)
	job.Env = map[string]string{"SHARED": "1", "PATH": "/usr/bin"}
	plain := NewProgram("plain")
	plain.Cmd = []string{"/usr/bin/plain"}
	plain.Stderr = "/var/log/plain.log"
	plain.Logs.Rotate, plain.Logs.Files = 50<<20, 10 // as supervisor does by itself
	plain.Umask, plain.Env = job.Umask, job.Env
	if want := []*Program{web, job, plain}; !reflect.DeepEqual(f.Programs, want) {
		t.Errorf("got  %+v\n     %+v\nwant %+v\n     %+v\nfrom\n%s", f.Programs[0], f.Programs[1], web, job, text)
	}
	if f.Daemon.Socket != "/tmp/supervisor.sock" || f.Daemon.LogFile != "/var/log/supervisord.log" {
		t.Errorf("daemon: %+v", f.Daemon)
	}
	want := []string{
		"supervisord.conf:4:1: unix_http_server.chmod: dropped: the socket is for its owner, and for daemon.group",
		"supervisord.conf:6:1: inet_http_server: section dropped: pm is controlled over its Unix socket",
		"supervisord.conf:11:1: supervisord.nodaemon: dropped: pm daemon stays in the foreground",
		"supervisord.conf:12:1: supervisord.user: dropped: start pm daemon as that user",
		"supervisord.conf:16:1: rpcinterface:supervisor: section dropped: pm is controlled over its Unix socket",
		"supervisord.conf:22:1: program:web.process_name: dropped: pm calls the instances NAME, or NAME:0, NAME:1 and so on",
		"supervisord.conf:32:1: program:web.stopasgroup: without effect: pm always stops the whole process tree",
		"supervisord.conf:38:1: program:web.environment: %(here)s has no counterpart in pm and stays as it is (known: group_name, numprocs, program_name or ENV_NAME)",
		"supervisord.conf:52:1: eventlistener:mem: section dropped: no counterpart in pm",
		"supervisord.conf:57:1: group:site.priority: dropped: no counterpart in pm",
		"supervisord.conf:59:1: include: the included files have to be converted too, and named in include",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings:\n%s", strings.Join(warnings, "\n"))
	}
}

func TestConvertProcfile(t *testing.T) {
	f, text, warnings := converted(t, "Procfile", `# a Procfile
web: bundle exec "my server" -p 5000
clock:   echo $$ ${HOME:-x}; exec clock > /dev/null
env-first: PORT=1 run
`, "")
	var got [][]string
	for _, p := range f.Programs {
		got = append(got, p.Cmd)
	}
	want := [][]string{
		{"sh", "-c", "echo $$ ${HOME:-x}; exec clock > /dev/null"},
		{"sh", "-c", "PORT=1 run"},
		{"bundle", "exec", "my server", "-p", "5000"},
	}
	if !reflect.DeepEqual(got, want) || len(warnings) > 0 {
		t.Errorf("got %q, %q from\n%s", got, warnings, text)
	}
}

func TestConvertFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"supervisord.conf", "a=1\n[program:x]\nnonsense\ncommand=a\ncommand=b\nnumprocs=-1\numask=9\nenvironment=A\n", `supervisord.conf:1:1: stands before the first section (accepted: [program:NAME])
supervisord.conf:3:1: "nonsense" is neither a section nor a key with a value (accepted: key = value)
supervisord.conf:5:1: duplicate key "command": it stands at supervisord.conf:4:1 already (accepted: key = value)
supervisord.conf:6:1: programs.x.numprocs: "-1": negative (accepted: 0 to 10000)
supervisord.conf:7:1: programs.x.umask: "9": not an octal mode (accepted: 000 to 777)
supervisord.conf:8:1: program:x.environment: not a list of KEY="value" with commas`},
		{"Procfile", "web bundle\na b: c\n", `Procfile:1:1: "web bundle": no : in the line (accepted: name: command)
Procfile:2:1: programs: "a b": not a name for a program (accepted: ` + namesAccept + `)`},
		{
			"a.conf", "[program:a]\ncommand=a\nnumprocs=%(ENV_N)s\n",
			`a.conf:3:1: programs.a.numprocs: "${N}": not a whole number (accepted: 0 to 10000; a conversion cannot look variables up: write the value)`,
		},
		{"tm.yaml", "programs:\n  a:\n    cmd: 'true'\n    umask: 9\n", `tm.yaml:4:12: programs.a.umask: "9": not an octal mode (accepted: 000 to 777)`},
	} {
		_, _, err := Convert(c.name, []byte(c.text), "")
		if fmt.Sprint(err) != c.want {
			t.Errorf("got\n%v\nwant\n%s", err, c.want)
		}
	}
	if _, _, err := Convert("x", nil, "systemd"); fmt.Sprint(err) != `unknown format "systemd" (accepted: taskmaster, supervisord or procfile)` {
		t.Errorf("got %v", err)
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"Procfile.dev", "", "procfile"},
		{"/etc/supervisor/supervisord.conf", "", "supervisord"},
		{"x.ini", "", "supervisord"},
		{"x.yml", "", "taskmaster"},
		{"-", "; c\n[program:x]\n", "supervisord"},
		{"-", "# c\nweb: run\n", "procfile"},
		{"-", "programs:\n  a:\n", "taskmaster"},
		{"-", "port: 4242\nprograms:\n", "taskmaster"},
		{"-", "", "taskmaster"},
	} {
		if got := detect(c.name, c.text); got != c.want {
			t.Errorf("%s %q: got %s, want %s", c.name, c.text, got, c.want)
		}
	}
}

func TestConvertSupervisordOutput(t *testing.T) {
	f, _, warnings := converted(t, "x.conf", `[program:a]
command = echo %% 100%! %(numprocs)02d %(ENV_A)s # a comment
numprocs: 2
stdout_logfile = syslog
stderr_logfile = NONE
[program:b]
command = echo
redirect_stderr = false
stdout_logfile =
stderr_logfile = /var/log/%(program_name)s.err
environment = A='open,B=2
`, "", "A=1")
	a, b := f.Program("a"), f.Program("b")
	if want := []string{"echo", "%", "100%!", "2", "1"}; !slices.Equal(a.Cmd, want) || a.Stdout != "syslog" || a.Stderr != "discard" {
		t.Errorf("got %+v", a)
	}
	if b.Stdout != "" || b.Stderr != "/var/log/b.err" || b.Env["A"] != "'open" || b.Env["B"] != "2" {
		t.Errorf("got %+v", b)
	}
	if len(warnings) > 0 {
		t.Errorf("got %q", warnings)
	}
}
