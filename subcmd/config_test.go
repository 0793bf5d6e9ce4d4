package subcmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pm.example/socket"
)

// pmFed runs a command line with text on its stdin.
func pmFed(t *testing.T, text string, args ...string) ran {
	t.Helper()
	var out, err bytes.Buffer
	code := Main(t.Context(), append([]string{"pm"}, args...), strings.NewReader(text), &out, &err, noEnv)
	return ran{code, out.String(), err.String()}
}

const goodConfig = "[programs.web]\ncmd = \"sh -c 'exit 3'\"\numask = \"022\"\n"

func TestConfigFromStdin(t *testing.T) {
	pmFed(t, goodConfig, "config", "check", "-").is(t, 0, "stdin: 1 program, no faults\n", "")
	pmFed(t, goodConfig, "config", "check", "--json", "-").is(t, 0, `{"schema":1,"file":"stdin","programs":1,"problems":[],"warnings":[]}`+"\n", "")
	pmFed(t, "", "config", "check", "-").is(t, socket.CodeUsage, "", "pm: stdin: no programs in it (an empty table of programs says that there are to be none)\n")
	pmFed(t, "[programs]\n", "config", "check", "-").is(t, 0, "stdin: 0 programs, no faults\n", "pm: warning: stdin: programs: no programs: nothing will run\n")

	r := pmFed(t, "[programs.web]\ncmd = \"sh\"\nnmprocs = 2\n", "config", "check", "-")
	r.is(t, socket.CodeUsage, "", "pm: stdin:3:1: programs.web: unknown key \"nmprocs\" (did you mean \"numprocs\"?)\n")
	r = pmFed(t, "[programs.web]\ncmd = \"sh\"\nnmprocs = 2\n", "config", "show", "-")
	r.is(t, socket.CodeUsage, "", "pm: stdin:3:1: programs.web: unknown key \"nmprocs\" (did you mean \"numprocs\"?)\n")

	pmFed(t, strings.Repeat("#", maxStdin+1), "config", "check", "-").is(t, socket.CodeUsage, "", "pm: stdin: larger than 16 MiB\n")
}

// What show prints is a config of the same meaning: it shows itself unchanged.
func TestConfigShowIsAConfig(t *testing.T) {
	first := pmFed(t, goodConfig, "config", "show", "-")
	first.is(t, 0, first.stdout, "")
	pmFed(t, first.stdout, "config", "show", "-").is(t, 0, first.stdout, "")

	var got struct {
		Programs map[string]map[string]any `json:"programs"`
	}
	asJSON := pmFed(t, goodConfig, "config", "show", "--json", "-")
	if err := json.Unmarshal([]byte(asJSON.stdout), &got); err != nil || got.Programs["web"]["umask"] != "022" || got.Programs["web"]["numprocs"] != 1.0 {
		t.Errorf("%v: %s", err, asJSON.stdout)
	}
}

func TestConfigShowRunning(t *testing.T) {
	path, _ := (&puppet{}).on(t)
	want := `{"programs":{"web":{"cmd":"a <b"}}}` + "\n"
	pmOn(t, path, "config", "show", "--running").is(t, 0, want, "")
	pmOn(t, "/dev/null/none", "config", "show", "--running", "--socket", path).is(t, 0, want, "")
}

func TestConfigConvertFromStdin(t *testing.T) {
	r := pmFed(t, "web: sh -c 'exit 3'\n", "config", "convert", "--from", "procfile", "-")
	r.is(t, 0, r.stdout, "")
	pmFed(t, r.stdout, "config", "check", "-").is(t, 0, "stdin: 1 program, no faults\n", "")
}

func TestConfigFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "pm.toml")
	for _, args := range [][]string{{"config", "check", missing}, {"config", "show", missing}, {"config", "convert", missing}, {"config", "check", dir}} {
		r := pmFed(t, "", args...)
		if r.code != socket.CodeUsage || r.stdout != "" || !strings.Contains(r.stderr, args[2]) || strings.Count(r.stderr, "\n") > 2 {
			t.Errorf("pm %q: %+v", args, r)
		}
	}
	if err := os.WriteFile(missing, []byte(goodConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	pmFed(t, "", "config", "check", missing).is(t, 0, missing+": 1 program, no faults\n", "")
}

func TestConfigSchema(t *testing.T) {
	r := pmFed(t, "", "config", "schema")
	r.is(t, 0, r.stdout, "")
	if !json.Valid([]byte(r.stdout)) {
		t.Error("the schema is no JSON")
	}
}
