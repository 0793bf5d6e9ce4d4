package socket

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/api.md has a section for each route, in their order, with an example,
// and none for anything else.
func TestRoutesAreDocumented(t *testing.T) {
	doc := apiDoc(t)
	var want []string
	for _, r := range routes() {
		want = append(want, r.method+" "+r.path)
		if !strings.Contains(doc, "http://pm"+r.path) {
			t.Errorf("%s has no example", r.path)
		}
	}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^## ([A-Z]+ /\S+)$`).FindAllStringSubmatch(doc, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("documented\n%v\nserved\n%v", got, want)
	}
}

// Every field of the wire types has its row in docs/api.md.
func TestFieldsAreDocumented(t *testing.T) {
	doc := apiDoc(t)
	for _, v := range []any{
		Status{},
		DaemonInfo{},
		Instance{},
		Exit{},
		Event{},
		Request{},
		Result{},
		Outcome{},
		InputRequest{},
		WaitRequest{},
		ReloadRequest{},
		Plan{},
		Action{},
		LogLine{},
		Problem{},
		Version{},
	} {
		typ := reflect.TypeOf(v)
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && !strings.Contains(doc, "| `"+name+"` |") && !strings.Contains(doc, "| `daemon."+name+"` |") {
				t.Errorf("%s: no row for %q", typ, name)
			}
		}
	}
}

func apiDoc(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}
