package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes files into a new directory and returns it.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, text)
	}
	return dir
}

func names(f *File) []string {
	var out []string
	for _, p := range f.Programs {
		out = append(out, p.Name)
	}
	return out
}

func TestInclude(t *testing.T) {
	dir := tree(t, map[string]string{
		"pm.toml":         "include = [\"conf.d/*.toml\", \"${EXTRA}.yaml\", \"none/*\"]\n[programs.main]\ncmd = \"true\"\n",
		"conf.d/b.toml":   "[programs.b]\ncmd = \"true\"\nstdout = \"log\"\n",
		"conf.d/a.toml":   "[programs.a]\ncmd = \"true\"\n",
		"extra.yaml":      "programs:\n  y:\n    cmd: 'true'\n    umask: 22\n",
		"conf.d/ignored~": "not TOML",
	})
	f, _, err := Load(filepath.Join(dir, "pm.toml"), environment("EXTRA=extra"))
	if err != nil {
		t.Fatal(err)
	}
	if got := names(f); !slices.Equal(got, []string{"a", "b", "main", "y"}) {
		t.Errorf("got %q", got)
	}
	if got, want := f.Program("b").Stdout, filepath.Join(dir, "conf.d/log"); got != want {
		t.Errorf("a relative path became %s, want %s", got, want)
	}
	if *f.Program("y").Umask != 0o22 {
		t.Error("the included file was not read as YAML")
	}
}

func TestIncludeFaults(t *testing.T) {
	dir := tree(t, map[string]string{
		"pm.toml": "include = [\"*.inc.toml\", \"gone.toml\", \"[\"]\n[programs.web]\ncmd = \"true\"\n[daemon]\nlog_format = \"json\"\n",
		"a.inc.toml": "include = [\"x\"]\n[programs.web]\ncmd = \"false\"\n" +
			"[daemon]\nlog_format = \"text\"\n",
		"b.inc.toml": "[programs.b]\nnope = 1\n",
	})
	_, _, err := Load(filepath.Join(dir, "pm.toml"), environment())
	got := strings.ReplaceAll(fmt.Sprint(err), dir+"/", "")
	want := `pm.toml:1:11: include: "gone.toml": no such file
pm.toml:1:11: include: "[" is not a pattern
a.inc.toml:1:11: include: an included file cannot include others
a.inc.toml:2:11: duplicate key "programs.web": it stands at pm.toml:2:11 already (remove one of them)
a.inc.toml:5:1: duplicate key "daemon.log_format": it stands at pm.toml:5:14 already (remove one of them)
b.inc.toml:1:11: programs.b.cmd: missing (accepted: a program to run and its arguments)
b.inc.toml:2:1: programs.b: unknown key "nope" (accepted: cmd, type, numprocs, priority, group, autostart, on_daemon_death, autorestart, exitcodes, startretries, starttime, stopsignal, stoptime, umask, workingdir, user, stdin, stdout, stderr, env, env_file, labels, logs, limits, backoff, kill)`
	if sorted(got) != sorted(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLoadOfWhatIsNotThere(t *testing.T) {
	_, _, err := Load(filepath.Join(t.TempDir(), "pm.toml"), nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "cannot read config: open ") {
		t.Errorf("got %v", err)
	}
	if _, _, err := Load(t.TempDir(), nil); err == nil {
		t.Error("a directory was read")
	}
	huge := filepath.Join(t.TempDir(), "pm.toml")
	writeFile(t, huge, "")
	if err := os.Truncate(huge, maxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(huge, nil); err == nil || !strings.Contains(err.Error(), "larger than 16 MiB") {
		t.Errorf("got %v", err)
	}
}

func TestRelativePaths(t *testing.T) {
	dir := tree(t, map[string]string{"pm.toml": `
[daemon]
log_file = "pm.log"
[email]
to = "a@b"
password_file = "/abs"
[programs.web]
cmd = "./run"
workingdir = "."
stdin = "in"
stdout = "out/log"
stderr = "stdout"
env_file = ["-env", "env2"]
`})
	f, _, err := Load(filepath.Join(dir, "pm.toml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := f.Programs[0]
	got := append([]string{p.Cmd[0], p.WorkingDir, p.Stdin, p.Stdout, p.Stderr, f.Daemon.LogFile, f.Email.PasswordFile}, p.EnvFile...)
	want := []string{"./run", dir, dir + "/in", dir + "/out/log", "stdout", dir + "/pm.log", "/abs", "-" + dir + "/env", dir + "/env2"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFind(t *testing.T) {
	dir := tree(t, map[string]string{"etc.toml": "", "pm.toml": ""})
	local, system := filepath.Join(dir, "pm.toml"), filepath.Join(dir, "etc.toml")
	for _, c := range []struct {
		explicit string
		places   []string
		want     string
	}{
		{"given.toml", []string{local}, "given.toml"},
		{"", []string{local, system}, local},
		{"", []string{dir + "/none", system}, system},
	} {
		if got, err := find(c.explicit, c.places...); got != c.want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, c.want)
		}
	}
	_, err := find("", "none.toml", "/none/pm.toml")
	if want := "no config file: tried ./none.toml and /none/pm.toml (name one with -c FILE)"; fmt.Sprint(err) != want {
		t.Errorf("got %v", err)
	}
}

func TestCheckMachine(t *testing.T) {
	dir := tree(t, map[string]string{"file": "", "bin/plain": "", "bin/run": "", "work/rel": "", "pm.toml": `
[daemon]
log_file = "none/pm.log"
[email]
to = "a@b"
password_file = "none/pw"
[programs.a]
cmd = "no-such-command x"
[programs.b]
cmd = "${DIR}/bin/plain"
stdout = "none/out"
stderr = "bin"
[programs.c]
cmd = "${DIR}/bin"
workingdir = "."
[programs.d]
cmd = "true"
workingdir = "none"
env_file = ["-none", "none"]
stdin = "none"
[programs.e]
cmd = "${DIR}/none"
workingdir = "file"
[programs.f]
cmd = "run"
env = { PATH = "${DIR}/bin" }
[programs.g]
cmd = "./rel"
workingdir = "work"
`})
	for _, path := range []string{"bin/run", "work/rel"} {
		if err := os.Chmod(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "/bin:/usr/bin")
	f, _, err := Load(filepath.Join(dir, "pm.toml"), environment("DIR="+dir))
	if err != nil {
		t.Fatal(err)
	}
	want := `pm.toml:3:12: daemon.log_file: "none/pm.log": directory none: no such file or directory
pm.toml:6:17: email.password_file: "none/pw": no such file or directory
pm.toml:8:7: programs.a.cmd: "no-such-command": no such command (PATH is /bin:/usr/bin)
pm.toml:10:7: programs.b.cmd: "bin/plain": not executable
pm.toml:11:10: programs.b.stdout: "none/out": directory none: no such file or directory
pm.toml:12:10: programs.b.stderr: "bin": is a directory
pm.toml:14:7: programs.c.cmd: "bin": is a directory
pm.toml:18:14: programs.d.workingdir: "none": no such file or directory
pm.toml:19:12: programs.d.env_file: "none": no such file or directory
pm.toml:20:9: programs.d.stdin: "none": no such file or directory
pm.toml:23:14: programs.e.workingdir: "file": not a directory`
	got := strings.ReplaceAll(strings.Join(texts(f.CheckMachine()), "\n"), dir+"/", "")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParseEnvFile(t *testing.T) {
	got, err := ParseEnvFile(strings.NewReader(`# a comment
A=1
export B = two words  # and a comment
	export	C='single $A # \n'
D="double \"x\" \\ \n \$A \q" # comment
E=
F=#none
G=a#b
exported=1
H="=x"
A=2
`), "env")
	want := []string{"A=1", "B=two words", `C=single $A # \n`, "D=double \"x\" \\ \n $A \\q", "E=", "F=", "G=a#b", "exported=1", "H==x", "A=2"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
}

func TestParseEnvFileFaults(t *testing.T) {
	_, err := ParseEnvFile(strings.NewReader("A\n1A=x\nB='open\nC=\"a\" b\nOK=1\n=x\nN=a\x00b\n"+strings.Repeat("x", maxEnvLine+1)), "env")
	want := `env:1:1: no = in the line (accepted: NAME=value)
env:2:1: "1A": not a name for a variable (accepted: letters, digits and _, not beginning with a digit)
env:3:3: B: a quote (') is not closed on its line
env:4:3: C: something follows the closing quote
env:6:1: not a name for a variable (accepted: letters, digits and _, not beginning with a digit)
env:7:3: N: holds a NUL byte
env:8:1: line longer than 64 KiB`
	if fmt.Sprint(err) != want {
		t.Errorf("got\n%v", err)
	}
}
