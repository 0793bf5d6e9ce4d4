package scrape

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// fixedTime is when the lines of most tests are converted.
func fixedTime() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC) }

const (
	head = `{"@version":"1"`
	now  = `,"@timestamp":"2026-01-02T03:04:05.006Z"}`
)

func newConverter(t testing.TB, o Options) *Converter {
	t.Helper()
	if o.Now == nil {
		o.Now = fixedTime
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// check converts each line, and compares the document without its newline. An
// empty document is none.
func check(t *testing.T, o Options, verdict Verdict, wants map[string]string) {
	t.Helper()
	c := newConverter(t, o)
	for line, want := range wants {
		if want != "" {
			want += "\n"
		}
		got, v := c.Append(nil, []byte(line))
		if string(got) != want || v != verdict {
			t.Errorf("%q\n got %s\nwant %s(verdict %d, want %d)", line, got, want, v, verdict)
		}
	}
}

func TestLogfmt(t *testing.T) {
	check(t, Options{}, Converted, map[string]string{
		`a=1`:                                   head + `,"a":"1"` + now,
		`a=1 b="two words" c`:                   head + `,"a":"1","b":"two words","c":null` + now,
		"  a= \t b=\"\" \r":                     head + `,"a":"","b":""` + now,
		`a="b"c=d`:                              head + `,"a":"b","c":"d"` + now,
		`a=C:\dir! b\=2`:                        head + `,"a":"C:\\dir!","b\\":"2"` + now,
		`a="\"\\\/\b\f\n\r\t\u00e9\'"`:          head + `,"a":"\"\\\/\b\f\n\r\t\u00e9'"` + now,
		`a="\ud83d\ude00 \ud83d \ude00\ud83dx"`: head + `,"a":"\ud83d\ude00 \ufffd \ufffd\ufffdx"` + now,
		`a="\ude00\ude00 \udfff \ud83d\ue000 \ud800\udc00 \udbff\udfff \ud7ff\ue000"`: head + `,"a":"\ufffd\ufffd \ufffd \ufffd\ue000 \ud800\udc00 \udbff\udfff \ud7ff\ue000"` + now,
		"a=\"tab\there\x01\"":                    head + `,"a":"tab\there\u0001"` + now,
		"zażółć=\"gęślą jaźń\" b=€\xff\xe2\x82!": head + ",\"zażółć\":\"gęślą jaźń\",\"b\":\"€\ufffd\ufffd\ufffd!\"" + now,
		"a=1\x00b=2\nc=\x7f":                     head + ",\"a\":\"1\",\"b\":\"2\",\"c\":\"\x7f\"" + now,
	})
}

func TestNotLogfmt(t *testing.T) {
	check(t, Options{Format: Logfmt}, Wrapped, map[string]string{
		`started, all is well`: head + `,"message":"started, all is well"` + now,
		`a={"b":1}`:            head + `,"message":"a={\"b\":1}"` + now,
		`a=b=c`:                head + `,"message":"a=b=c"` + now,
		`a=b"c"`:               head + `,"message":"a=b\"c\""` + now,
		`a"b"=c`:               head + `,"message":"a\"b\"=c"` + now,
		`=b`:                   head + `,"message":"=b"` + now,
		`a="open`:              head + `,"message":"a=\"open"` + now,
		`a="\x"`:               head + `,"message":"a=\"\\x\""` + now,
		`a="\u12g4"`:           head + `,"message":"a=\"\\u12g4\""` + now,
		`a="\`:                 head + `,"message":"a=\"\\"` + now,
		"a=\"tab\t\\n\"":       head + `,"message":"a=\"tab\t\\n\""` + now,
		"\xff=1\x00\r":         head + ",\"message\":\"\ufffd=1\\u0000\"" + now,
		"{\"a\":1}":            head + `,"message":"{\"a\":1}"` + now,
	})
}

func TestJSON(t *testing.T) {
	check(t, Options{}, Converted, map[string]string{
		` { } `:          head + now,
		`{"a":"b","":1}`: head + `,"a":"b","":1` + now,
		"\t{ \"a\" : [ 1 , -2.5e+3 , true , null , { \"x\" : [ ] , \"y\" : { } } ] }\r": head + `,"a":[1,-2.5e+3,true,null,{"x":[],"y":{}}]` + now,
		`{"a":"\"\\\/\b\u00e9","b":false}`:                                              head + `,"a":"\"\\\/\b\u00e9","b":false` + now,
		`{"\u0061\/\n\u0001\ud83d\ude00":"\ud83d"}`:                                     head + `,"a/\n\u0001😀":"\ufffd"` + now,
		"{\"a\xff\":\"€\xe2\x82\"}":                                                     head + ",\"a\ufffd\":\"€\ufffd\ufffd\"" + now,
		`{"a":{"a":1,"a":2}}`:                                                           head + `,"a":{"a":1,"a":2}` + now,
		`{"\u0008\b\f123":1}`:                                                           head + `,"\b\b\f123":1` + now,
		deep(maxDepth - 1):                                                              head + "," + deep(maxDepth - 1)[1:len(deep(maxDepth-1))-1] + now,
		`{"n":[0,-0,0.10,1E5,123456789012345678901234567890]}`:                          head + `,"n":[0,-0,0.10,1E5,123456789012345678901234567890]` + now,
	})
}

// deep makes an object with arrays in each other.
func deep(arrays int) string {
	return `{"a":` + strings.Repeat("[", arrays) + strings.Repeat("]", arrays) + `}`
}

func TestNotJSON(t *testing.T) {
	wants := map[string]string{}
	for _, line := range []string{
		`{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{"a":1}}`, `{"a":1} x`, `{"a" 1}`, `{a:1}`, `{,}`,
		`{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":-}`, `{"a":1e}`, `{"a":+1}`, `{"a":NaN}`, `{"a":tru}`, `{"a":nulL}`, `{"a":falsey}`,
		`{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":{"b"}}`, `{"a":{1:2}}`, `{"a":'b'}`, `{"a":"\'"}`, `{"a":"\u12"}`, "{\"a\":\"\t\"}", "{\"a\":1}\x00",
		deep(maxDepth),
	} {
		wants[line] = head + `,"message":"` + encode(line) + `"` + now
	}
	check(t, Options{}, Wrapped, wants)
	check(t, Options{Format: JSON}, Wrapped, map[string]string{`a=1`: head + `,"message":"a=1"` + now, `[1]`: head + `,"message":"[1]"` + now})
}

func TestConventions(t *testing.T) {
	check(t, Options{}, Converted, map[string]string{
		`time=2026-01-01T00:00:00Z msg=x`:              head + `,"@timestamp":"2026-01-01T00:00:00Z","message":"x"}`,
		`msg="a b" time="2026-01-01T00:00:00.1+01:00"`: head + `,"message":"a b","@timestamp":"2026-01-01T00:00:00.1+01:00"}`,
		`time=yesterday message=x`:                     head + `,"time":"yesterday","message":"x"` + now,
		`{"time":1767225600,"msg":null}`:               head + `,"time":1767225600,"message":null` + now,
		`{"@timestamp":"2026-01-01T00:00:00Z"}`:        head + `,"@timestamp":"2026-01-01T00:00:00Z"}`,
		`{"@timestamp":"now","@version":3}`:            head + `,"_@timestamp":"now"` + now,
	})
}

func TestLastOfEqualKeysCounts(t *testing.T) {
	check(t, Options{}, Converted, map[string]string{
		`a=1 b=2 a=3`:                head + `,"b":"2","a":"3"` + now,
		`a=1 a=2 a`:                  head + `,"a":null` + now,
		`{"a":1,"b":2,"\u0061":"3"}`: head + `,"b":2,"a":"3"` + now,
		`msg=1 level=x message=2`:    head + `,"level":"x","message":"2"` + now,
		`time=2026-01-01T00:00:00Z @timestamp=2026-01-01T00:00:01Z a=1`: head + `,"@timestamp":"2026-01-01T00:00:01Z","a":"1"}`,
		`time=2026-01-01T00:00:00Z time=later`:                          head + `,"@timestamp":"2026-01-01T00:00:00Z","time":"later"}`,
		`aaaaaaaaXaaaaaaaa=1 aaaaaaaaYaaaaaaaa=2`:                       head + `,"aaaaaaaaXaaaaaaaa":"1","aaaaaaaaYaaaaaaaa":"2"` + now,
	})
}

func TestOptions(t *testing.T) {
	o := Options{
		IgnoreKeys: []string{"secret", `q"`, "time"},
		Fields:     append([]Field{{Key: "dc", Value: "old"}, {Key: "dc", Value: "\"a\xff"}, {Key: "x", Value: " { \"y\" : [ 1 ] } ", JSON: true}}, System{Host: "h1", Zone: "z", ServiceID: "7"}.Fields()...),
		Rename:     map[string]string{"lvl": "level", "ts": "@timestamp", "msg": "text", "zone": "of", "a": "secret"},
	}
	head := `{"@version":"1","dc":"\"a` + "\ufffd" + `","x":{"y":[1]},"srchost":"h1","zone":"z","scid":7`
	check(t, o, Converted, map[string]string{
		`secret=1 lvl=info msg=m`:                    head + `,"level":"info","text":"m"` + now,
		`ts=2026-01-01T00:00:00Z dc=x scid=8 zone=1`: head + `,"@timestamp":"2026-01-01T00:00:00Z","of":"1"}`,
		`ts=1 time=2026-01-01T00:00:00Z a=2`:         head + `,"ts":"1","secret":"2"` + now,
		`{"q\u0022":1,"\u0073ecret":{"x":1},"d":2}`:  head + `,"d":2` + now,
	})
}

// What is no time would come back under a name that a field has.
func TestFieldsWinOverWhatIsNoTime(t *testing.T) {
	check(t, Options{Fields: []Field{{Key: "time", Value: "1"}, {Key: "_@timestamp", Value: "2"}}}, Converted, map[string]string{
		`a=1 time=x @timestamp=y b=2`: head + `,"time":"1","_@timestamp":"2","a":"1","b":"2"` + now,
		`time=2026-01-01T00:00:00Z`:   head + `,"time":"1","_@timestamp":"2","@timestamp":"2026-01-01T00:00:00Z"}`,
	})
}

func TestFaultyOptions(t *testing.T) {
	for want, o := range map[string]Options{
		`field x: "{" is not JSON`: {Fields: []Field{{Key: "x", Value: "{", JSON: true}}},
		"cannot rename key a to b\ufffd: documents have a b\ufffd of their own; choose another name": {Fields: []Field{{Key: "b\xff"}}, Rename: map[string]string{"a": "b\ufffd"}},
		"field truncated: documents have a truncated of their own; choose another name\nfield x: \"\" is not JSON\ncannot rename key a to nothing: to leave it out, ignore it": {
			Fields: []Field{{Key: "truncated"}, {Key: "x", JSON: true}}, Rename: map[string]string{"a": ""},
		},
		`cannot rename key a to nothing: to leave it out, ignore it`:                                   {Rename: map[string]string{"a": ""}},
		`cannot echo invalid lines: Options.Echo is not set`:                                           {Invalid: Echo},
		`field x: "1 2" is not JSON`:                                                                   {Fields: []Field{{Key: "x", Value: "1 2", JSON: true}}},
		`field x: "" is not JSON`:                                                                      {Fields: []Field{{Key: "x", JSON: true}}},
		`field message: documents have a message of their own; choose another name`:                    {Fields: []Field{{Key: "message"}}},
		`cannot rename key a to dc: documents have a dc of their own; choose another name`:             {Fields: []Field{{Key: "dc"}}, Rename: map[string]string{"a": "dc"}},
		`cannot rename key a to @version: documents have a @version of their own; choose another name`: {Rename: map[string]string{"a": "@version"}},
	} {
		if _, err := New(o); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestSystemFields(t *testing.T) {
	got := System{Host: "h", Region: "r", Zone: "z", InstanceID: "i", ServiceID: "12a"}.Fields()
	want := []Field{{Key: "srchost", Value: "h"}, {Key: "region", Value: "r"}, {Key: "zone", Value: "z"}, {Key: "instance-id", Value: "i"}, {Key: "scid", Value: "12a"}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got = (System{ServiceID: "12"}).Fields(); !slices.Equal(got, []Field{{Key: "scid", Value: "12", JSON: true}}) {
		t.Errorf("%+v", got)
	}
}

func TestBlankLines(t *testing.T) {
	check(t, Options{}, Blank, map[string]string{"": "", " ": "", "\t \r": ""})
}

func TestInvalidLines(t *testing.T) {
	check(t, Options{Invalid: Drop}, Dropped, map[string]string{"text": "", `{"a"`: ""})
	var echoed []string
	check(t, Options{Invalid: Echo, Echo: func(line []byte) { echoed = append(echoed, string(line)) }}, Echoed, map[string]string{"te\x00xt ": ""})
	if !slices.Equal(echoed, []string{"te\x00xt "}) {
		t.Errorf("%q", echoed)
	}
}

func TestLongLines(t *testing.T) {
	o := Options{MaxLine: 10}
	check(t, o, Converted, map[string]string{`a=34567890`: head + `,"a":"34567890"` + now})
	check(t, o, Wrapped, map[string]string{
		`a=345678901`:     head + `,"message":"a=34567890","truncated":true` + now,
		"a=34567€89":      head + ",\"message\":\"a=34567€\",\"truncated\":true" + now,
		"a=345678€":       head + ",\"message\":\"a=345678\ufffd\ufffd\",\"truncated\":true" + now,
		`            a=1`: head + `,"message":"          ","truncated":true` + now,
	})
}

func TestTooManyMembers(t *testing.T) {
	line := func(members int) (text []byte) {
		for i := range members {
			text = fmt.Appendf(text, "k%d=1 ", i)
		}
		return text
	}
	c := newConverter(t, Options{Rename: map[string]string{"k1": strings.Repeat("long", 10000)}})
	if _, v := c.Append(nil, line(maxMembers)); v != Converted {
		t.Errorf("%d members: verdict %d", maxMembers, v)
	}
	if out, v := c.Append(nil, line(maxMembers+1)); v != Wrapped || !bytes.HasPrefix(out, []byte(head+`,"message":"k0=1 `)) {
		t.Errorf("%d members: verdict %d", maxMembers+1, v)
	}
	if _, v := c.Append(nil, bytes.Repeat([]byte("k1= "), 10*maxMembers)); v != Wrapped {
		t.Errorf("one key many times: verdict %d", v)
	}
}

func TestAppendBlock(t *testing.T) {
	var echoed []string
	c := newConverter(t, Options{Invalid: Echo, MaxLine: 10, Echo: func(line []byte) { echoed = append(echoed, string(line)) }})
	out, consumed, counts := c.AppendBlock([]byte("x"), []byte("a=1\r\n\n{\"b\":2}\ntext\na=3456789012\nb="))
	if want := "x" + head + `,"a":"1"` + now + "\n" + head + `,"b":2` + now + "\n"; string(out) != want {
		t.Errorf("%s\nwant %s", out, want)
	}
	want := Counts{Lines: 5, Converted: 2, Blank: 1, Echoed: 2, Long: 1}
	if consumed != len("a=1\r\n\n{\"b\":2}\ntext\na=3456789012\n") || counts != want {
		t.Errorf("%d %+v", consumed, counts)
	}
	if !slices.Equal(echoed, []string{"text", "a=34567890"}) {
		t.Errorf("%q", echoed)
	}
	counts.Add(Counts{Lines: 1, Converted: 2, Blank: 3, Wrapped: 4, Echoed: 5, Dropped: 6, Long: 7})
	if (counts != Counts{Lines: 6, Converted: 4, Blank: 4, Wrapped: 4, Echoed: 7, Dropped: 6, Long: 8}) {
		t.Errorf("%+v", counts)
	}
}

// A block is to become what its lines become, wherever they stand in it.
func TestBlocksAreLines(t *testing.T) {
	c := newConverter(t, Options{Fields: []Field{{Key: "dc", Value: "a"}}})
	var block, want []byte
	var counts Counts
	for _, line := range bytes.SplitAfter(append(uglyBlock(1), makeBlock(logfmtLine, 20)...), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		block = append(block, line...)
		var v Verdict
		want, v = c.Append(want, line[:len(line)-1])
		counts.count(v)
		got, consumed, gotCounts := c.AppendBlock(nil, block)
		if !bytes.Equal(got, want) || consumed != len(block) || gotCounts != counts {
			t.Fatalf("after %q: %d of %d, %+v\n got %s\nwant %s", line, consumed, len(block), gotCounts, got, want)
		}
	}
}

// What is kept of the keys of a line must not show in the next: a key is not
// another that is longer, shorter, or differs in one byte.
func TestKeysOfTheLineBefore(t *testing.T) {
	var lines []string
	for _, size := range []int{1, 3, 6, 7, 8, 9, 14, 15, 16, 17} {
		key := "abcdefghijklmnopqr"[:size]
		lines = append(lines, key+"=1 b=2", key+" b=2", key+`="1 2"`, "b=1 "+key+"=2", key+"=1 "+key+"=2", key+"!=1", key[:size-1]+"ż=1", "=1")
		for i := range size {
			lines = append(lines, key[:i]+"X"+key[i+1:]+"=1")
		}
	}
	c := newConverter(t, Options{IgnoreKeys: []string{"abc"}, Rename: map[string]string{"abcdefg": "a longer name", "abcdefgh": "x"}})
	for _, line := range lines {
		c.keys = [len(c.keys)]knownKey{}
		want, wantVerdict := c.Append(nil, []byte(line))
		for _, before := range lines {
			c.keys = [len(c.keys)]knownKey{}
			c.Append(nil, []byte(before))
			if got, verdict := c.Append(nil, []byte(line)); !bytes.Equal(got, want) || verdict != wantVerdict {
				t.Fatalf("%q after %q: verdict %d\n got %s\nwant %s", line, before, verdict, got, want)
			}
		}
	}
}

func TestTimeOfConversion(t *testing.T) {
	at := fixedTime()
	c := newConverter(t, Options{Now: func() time.Time { at = at.Add(time.Second); return at.In(time.FixedZone("x", 3600)) }})
	out, _, _ := c.AppendBlock(nil, []byte("a=1\nb=1\n"))
	out, _ = c.Append(out, []byte("c=1"))
	if got := strings.Count(string(out), "03:04:06.006Z"); got != 2 || !bytes.Contains(out, []byte(`"c":"1","@timestamp":"2026-01-02T03:04:07.006Z"`)) {
		t.Errorf("%s", out)
	}
}

func TestIsTimeString(t *testing.T) {
	for value, want := range map[string]bool{
		"2026-01-02T03:04:05Z":                true,
		"2024-02-29T23:59:59.123456789+00:00": true,
		"2026-01-02T03:04:05-0730":            true,
		"2000-02-29T00:00:00Z":                true,
		"1900-02-29T00:00:00Z":                false,
		"2026-02-29T00:00:00Z":                false,
		"2026-04-31T00:00:00Z":                false,
		"2026-12-31T00:00:00Z":                true,
		"2026-00-01T00:00:00Z":                false,
		"2026-13-01T00:00:00Z":                false,
		"2026-01-00T00:00:00Z":                false,
		"2026-01-32T00:00:00Z":                false,
		"2026-01-02T24:00:00Z":                false,
		"2026-01-02T03:60:00Z":                false,
		"2026-01-02T03:04:60Z":                false,
		"2026-01-02 03:04:05Z":                false,
		"2026-01-02T03:04:05":                 false,
		"2026-01-02T03:04:05.Z":               false,
		"2026-01-02T03:04:05.1":               false,
		"2026-01-02T03:04:05+1:00":            false,
		"2026-01-02T03:04:05+19:00":           false,
		"2026-01-02T03:04:05+01:60":           false,
		"2026-01-02T03:04:05+01:0":            false,
		"2026-01-02T03:04:05+aa:00":           false,
		"2026-01-02T03:04:05z":                false,
		"2026-01-02T03:04:05ZZ":               false,
		"2o26-01-02T03:04:05Z":                false,
		"":                                    false,
	} {
		if got := isTimeString([]byte(`"` + value + `"`)); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	c := newConverter(t, Options{Invalid: Wrap, Now: time.Now, Fields: []Field{{Key: "dc", Value: "a"}}, IgnoreKeys: []string{"bytes"}, Rename: map[string]string{"logger": "logger_name"}})
	block := slices.Concat(makeBlock(logfmtLine, 50), makeBlock(jsonLine, 50), uglyBlock(2))
	dst, _, _ := c.AppendBlock(nil, block)
	if n := testing.AllocsPerRun(20, func() { c.AppendBlock(dst[:0], block) }); n > 0 {
		t.Errorf("a block: %v allocations", n)
	}
	lines := bytes.Split(block, []byte("\n"))
	if n := testing.AllocsPerRun(20, func() {
		for _, line := range lines {
			c.Append(dst[:0], line)
		}
	}); n > 0 {
		t.Errorf("lines: %v allocations", n)
	}
}
