package socket

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// No body makes a POST fail inside.
func FuzzRequestBodies(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `{"selectors":["web:*"],"signal":"HUP","numprocs":3,"rolling":true,"no_wait":true,"timeout_seconds":1.5}`,
		`{"selectors":["a"],"for":"healthy"}`, `{"selectors":["a"],"text":"x","base64":"eA=="}`, `{"selectors":["a"],"base64":"="}`, `{"dry_run":true}`, `{"selectors":null}{}`, `{"selectors":[""]}`, `[`, "{\"selectors\":[\"\xff\"]}",
		`{"selectors":["a"],"numprocs":1e99}`, `{"SELECTORS":["a"],"selectors":["b"]}`,
	} {
		f.Add([]byte(seed))
	}
	s, conn := handler(f, &fake{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, r := range routes() {
			if r.method == http.MethodPost {
				checkAnswer(t, record(s, conn, r.method, r.path, string(body)))
			}
		}
	})
}

// No query makes a GET fail inside.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		``, `sel=a&sel=b%3A*`, `sel=`, `lines=5&stream=stdout&follow`, `follow=true&since=18446744073709551615`, `since=-1`, `%zz`, `;`, `a=b&&=`,
	} {
		f.Add(seed)
	}
	s, conn := handler(f, &fake{})
	f.Fuzz(func(t *testing.T, query string) {
		for _, r := range routes() {
			if r.method != http.MethodGet {
				continue
			}
			target := &url.URL{Path: r.path, RawQuery: query}
			if _, err := url.ParseRequestURI(target.String()); err != nil || hasControl(query) {
				return // net/http would not let it through
			}
			checkAnswer(t, record(s, conn, r.method, target.String(), ""))
		}
	})
}

// hasControl reports whether a request line cannot hold s.
func hasControl(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

// checkAnswer wants JSON, unless the answer is text, and no fault of the server's.
func checkAnswer(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code >= 500 {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
	if isText := strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain"); !isText && !json.Valid(w.Body.Bytes()) {
		t.Errorf("answered %q, which is not JSON", w.Body)
	}
}
