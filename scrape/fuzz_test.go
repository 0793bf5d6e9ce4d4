package scrape

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-logfmt/logfmt"
)

// addSeeds adds what the converter meets in the other tests.
func addSeeds(f *testing.F) {
	block := append(append(uglyBlock(1), makeBlock(logfmtLine, 3)...), makeBlock(jsonLine, 3)...)
	for line := range bytes.SplitSeq(block, []byte("\n")) {
		f.Add(line)
	}
	for _, line := range []string{
		`a= b="" c`, `a="b"c=d`, `a="b"=c`, `a="\'\/\ud800\udc00"`, "a=\"\t\\n\"", "\ufffd=1", `{"a":"\'"}`, `{"a":"\ud800x"}`, `{"":{"":[]}}`,
		`{"\b\b12345":"x"}`, `{"a":1e999,"b":-0}`, `{"@timestamp":"2026-01-01T00:00:00Z","time":1}`, `{"12345678":1,"1234567":2,"\u0031234567":3}`, `{"a":[` + strings.Repeat("[", 40),
	} {
		f.Add([]byte(line))
	}
}

// decodeObject decodes an object strictly: encoding/json has to take it, no key
// may come twice, and it is one line of UTF-8.
func decodeObject(t *testing.T, text []byte) map[string]any {
	t.Helper()
	if !utf8.Valid(text) || bytes.IndexByte(text, '\n') != len(text)-1 {
		t.Fatalf("not a line of UTF-8: %q", text)
	}
	keys := map[string]json.RawMessage{}
	object := map[string]any{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	if members := countMembers(t, text); members != len(keys) {
		t.Fatalf("%d members, %d keys: %q", members, len(keys), text)
	}
	return object
}

// countMembers counts the members of the outermost object.
func countMembers(t *testing.T, text []byte) (n int) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		t.Fatal(err)
	}
	for decoder.More() {
		var value json.RawMessage
		if _, err := decoder.Token(); err != nil {
			t.Fatal(err)
		}
		if err := decoder.Decode(&value); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// FuzzAppend holds every line, under many options, to what comes out being valid,
// and to a line being the same whatever stands around it.
func FuzzAppend(f *testing.F) {
	addSeeds(f)
	var converters []*Converter
	for format := range JSON + 1 {
		for _, o := range []Options{
			{},
			{Fields: []Field{{Key: "time"}, {Key: "_@timestamp"}}, Rename: map[string]string{"": "@timestamp"}},
			{MaxLine: 20, IgnoreKeys: []string{"b"}},
			{Fields: []Field{{Key: "a", Value: "x\""}}, Rename: map[string]string{"level": "a long name \"for it\"", "msg": "b", "b": "@timestamp", "": "empty"}},
		} {
			o.Format = format
			converters = append(converters, newConverter(f, o))
		}
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, c := range converters {
			out, verdict := c.Append([]byte("x"), line)
			if verdict == Blank {
				if len(out) != 1 {
					t.Fatalf("a blank line became %q", out)
				}
				continue
			}
			decodeObject(t, out[1:])
			if bytes.IndexByte(line, '\n') >= 0 {
				continue
			}
			block := bytes.Join([][]byte{[]byte("k=\"v\""), line, line, []byte("k=v")}, []byte("\n"))
			got, consumed, _ := c.AppendBlock(nil, block)
			if n := bytes.Count(got, out[1:]); n < 2 || consumed != len(block)-len("k=v") {
				t.Fatalf("in a block %q, not %q", got, out[1:])
			}
		}
	})
}

// FuzzLogfmt compares with go-logfmt: the same lines are valid, and mean the
// same. It knows no difference between a key without a value and an empty one.
func FuzzLogfmt(f *testing.F) {
	addSeeds(f)
	c := newConverter(f, Options{Format: Logfmt, Rename: map[string]string{"time": "time", "msg": "msg", timestampKey: "x-" + timestampKey, versionKey: "x-" + versionKey}})
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		out, verdict := c.Append(nil, line)
		want, ok := decodeLogfmt(line)
		if converted := verdict == Converted; converted != ok {
			t.Fatalf("%q: verdict %d, but go-logfmt %v", line, verdict, ok)
		}
		if !ok {
			return
		}
		got := decodeObject(t, out)
		delete(got, timestampKey)
		delete(got, versionKey)
		for key, value := range got {
			if value == nil {
				got[key] = ""
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\n got %q\nwant %q", line, got, want)
		}
	})
}

// decodeLogfmt decodes a line with go-logfmt. It is not ok if there is no pair, or
// too many.
func decodeLogfmt(line []byte) (entry map[string]any, ok bool) {
	entry = map[string]any{}
	members := 0
	decoder := logfmt.NewDecoderSize(bytes.NewReader(line), len(line)+100)
	for decoder.ScanRecord() {
		for decoder.ScanKeyval() {
			key := string(decoder.Key())
			switch key {
			case timestampKey, versionKey:
				key = "x-" + key
			}
			entry[key] = string([]rune(string(decoder.Value()))) // with U+FFFD for what is no UTF-8
			members++
		}
	}
	return entry, decoder.Err() == nil && members > 0 && members <= maxMembers && hasPair(line)
}

// hasPair reports whether a valid line has an equals sign outside of quotes.
func hasPair(line []byte) bool {
	quoted := false
	for i := 0; i < len(line); i++ {
		switch {
		case quoted && line[i] == '\\':
			i++
		case line[i] == '"':
			quoted = !quoted
		case line[i] == '=' && !quoted:
			return true
		}
	}
	return false
}

// FuzzJSON compares with encoding/json: the same objects are valid, and mean the
// same.
func FuzzJSON(f *testing.F) {
	addSeeds(f)
	c := newConverter(f, Options{Format: JSON, Rename: map[string]string{"time": "time", "msg": "msg", timestampKey: "x-" + timestampKey, versionKey: "x-" + versionKey}})
	f.Fuzz(func(t *testing.T, line []byte) {
		out, verdict := c.Append(nil, line)
		want := map[string]any{}
		decoder := json.NewDecoder(bytes.NewReader(line))
		decoder.UseNumber()
		ok := json.Valid(line) && bytes.TrimSpace(line)[0] == '{'
		if ok && (countMembers(t, line) > maxMembers || bytes.Count(line, []byte("["))+bytes.Count(line, []byte("{")) > maxDepth) {
			return
		}
		if converted := verdict == Converted; converted != ok {
			t.Fatalf("%q: verdict %d, but encoding/json %v", line, verdict, ok)
		}
		if !ok {
			return
		}
		if err := decoder.Decode(&want); err != nil {
			t.Fatal(err)
		}
		got := decodeObject(t, out)
		delete(got, timestampKey)
		delete(got, versionKey)
		for key, value := range maps.Clone(want) {
			if key == timestampKey || key == versionKey {
				delete(want, key)
				want["x-"+key] = value
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\n got %q\nwant %q", line, got, want)
		}
	})
}

// FuzzTime holds what is taken for a time to being one for package time.
func FuzzTime(f *testing.F) {
	f.Add("2026-01-02T03:04:05.000Z")
	f.Add("2024-02-29T23:59:59+18:00")
	f.Fuzz(func(t *testing.T, text string) {
		value := fmt.Appendf(nil, "%q", text)
		if !isTimeString(value) {
			return
		}
		if colon := len(text) - 3; text[colon] != ':' && !strings.HasSuffix(text, "Z") {
			text = text[:colon+1] + ":" + text[colon+1:]
		}
		if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
			t.Fatal(err)
		}
	})
}
