package config

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// seeds adds the files of examples and testdata that end so.
func seeds(f *testing.F, more ...string) {
	for _, path := range []string{"../examples/full.toml", "../examples/quickstart.toml", "../examples/taskmaster.yaml", "testdata/faults.toml", "testdata/faults.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, text := range append(more, everything, supervisordConf) {
		f.Add(text)
	}
}

// checkPromise holds Parse to what it promises of any text: a file that means
// the same when it is shown and read again, or faults with their places.
func checkPromise(t *testing.T, name, text string) {
	f, _, err := Parse(name, []byte(text), environment("A=1"))
	if err != nil {
		checkFaults(t, err)
		return
	}
	shown, err := f.TOML()
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := Parse("shown.toml", shown, environment())
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, shown)
	}
	if !reflect.DeepEqual(f.Programs, again.Programs) || f.Email.Server != again.Email.Server && len(f.Email.To) > 0 {
		t.Fatalf("shown as\n%s", shown)
	}
	if _, err := f.JSON(); err != nil {
		t.Fatal(err)
	}
}

func checkFaults(t *testing.T, err error) {
	var faults *Errors
	if !errors.As(err, &faults) || len(faults.Problems) == 0 {
		t.Fatalf("no faults: %v", err)
	}
	for _, p := range faults.Problems {
		if p.File == "" || p.Message == "" || strings.Contains(p.String(), "\n") {
			t.Fatalf("a fault without place or message, or of several lines: %q", p)
		}
	}
}

// FuzzTOML also holds the scan to the library: whatever the library reads, the
// scan must have seen, each key where it stands.
func FuzzTOML(f *testing.F) {
	seeds(f, "a.\"b\\u0041\".'c' = [ { x = 1 }, [2,\n3 # c\n] ]\n[[t]]\n[t.u]\nk = '''\n''''\n[[t]]\nd = 1979-05-27 07:32:00\n")
	f.Fuzz(func(t *testing.T, text string) {
		var values map[string]any
		spots, scan := scanTOML(strings.TrimPrefix(text, "\uFEFF"))
		if _, err := toml.Decode(text, &values); err == nil && !scan.tooDeep && len(scan.doubles) == 0 {
			checkSpots(t, text, values, spots)
		}
		checkPromise(t, "x.toml", text)
	})
}

func checkSpots(t *testing.T, text string, value any, place *spot) {
	if place == nil {
		t.Fatalf("no place for %v", value)
	}
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			if place.kids[key] == nil {
				t.Fatalf("no place for key %q", key)
			}
			checkSpots(t, text, inner, place.kids[key])
		}
	case []map[string]any:
		for i := range v {
			checkSpots(t, text, v[i], place.item(i))
		}
	case []any:
		for i := range v {
			checkSpots(t, text, v[i], place.item(i))
		}
	case int64, bool:
		if place.raw == "" || !strings.Contains(text, place.raw) {
			t.Fatalf("%v is not %q in the text", v, place.raw)
		}
	}
}

func FuzzYAML(f *testing.F) {
	seeds(f, "a: &x {<<: *x}\n", "a: [*b]\n", "? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) { checkPromise(t, "x.yaml", text) })
}

func FuzzConvert(f *testing.F) {
	seeds(f, "web: run $$\n", "[program:a]\ncommand=%(ENV_A)s\nenvironment=A=\"b\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, format := range Formats() {
			out, warnings, err := Convert("x", []byte(text), format)
			if err != nil {
				checkFaults(t, err)
				continue
			}
			for _, w := range warnings {
				if strings.Contains(w.String(), "\n") {
					t.Fatalf("a warning of several lines: %q", w)
				}
			}
			checkConverted(t, out)
		}
	})
}

// checkConverted reads what Convert made. Only what Convert does not look at
// may be wrong in it: the machine's users, variables and included files.
func checkConverted(t *testing.T, out []byte) {
	_, _, err := Parse("out.toml", out, nil)
	var faults *Errors
	if err == nil || !errors.As(err, &faults) {
		return
	}
	for _, p := range faults.Problems {
		known := strings.Contains(p.Message, "on this machine") || strings.Contains(p.Value+p.Message, "${") ||
			strings.HasPrefix(p.Message, "variable ") || p.Key == "include"
		if !known {
			t.Fatalf("%v\nin\n%s", p, out)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	for _, text := range []string{"A=1\nexport B='x'\n", "C=\"\\n\"#", "=", "export =", "'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		env, err := ParseEnvFile(strings.NewReader(text), "env")
		if err != nil {
			checkFaults(t, err)
		}
		for _, pair := range env {
			name, value, ok := strings.Cut(pair, "=")
			if !ok || !isVariable(name) || strings.ContainsRune(value, 0) {
				t.Fatalf("not a variable: %q", pair)
			}
		}
	})
}
