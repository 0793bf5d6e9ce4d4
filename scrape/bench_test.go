package scrape

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/go-logfmt/logfmt"
)

// The lines of the benchmarks are like those of services: 150 to 300 bytes with
// 8 to 15 pairs, a message of a few words, and now and then a value with escapes.

// pair is a key of a line with its value, and whether that is a number in JSON.
type pair struct {
	key, value string
	number     bool
}

var messages = []string{
	"request served", "cache miss, asking the origin", "connection to database restored after retry", "user logged in",
	"payment of order accepted", "slow query", "queue drained, going to sleep", `cannot parse header "X-Trace"`,
}

// makePairs makes the pairs of one line.
func makePairs(r *rand.Rand) []pair {
	at := time.Date(2026, 11, 22, 10, r.IntN(60), r.IntN(60), r.IntN(1e9), time.UTC)
	pairs := []pair{
		{"time", at.Format("2006-01-02T15:04:05.000Z07:00"), false},
		{"level", []string{"info", "info", "info", "warn", "error", "debug"}[r.IntN(6)], false},
		{"logger", []string{"http", "pl.example.orders.OrderService", "db.pool", "cache"}[r.IntN(4)], false},
		{"msg", messages[r.IntN(len(messages))], false},
		{"method", []string{"GET", "POST", "DELETE"}[r.IntN(3)], false},
		{"path", fmt.Sprintf("/api/v1/items/%d", r.IntN(1e6)), false},
		{"status", fmt.Sprint(200 + r.IntN(5)), true},
		{"duration", fmt.Sprintf("%d.%02dms", r.IntN(300), r.IntN(100)), false},
		{"bytes", fmt.Sprint(r.IntN(1e5)), true},
		{"remote", fmt.Sprintf("10.%d.%d.%d", r.IntN(256), r.IntN(256), r.IntN(256)), false},
		{"trace-id", fmt.Sprintf("%016x", r.Uint64()), false},
		{"thread", fmt.Sprintf("worker-%d", r.IntN(32)), false},
		{"user", fmt.Sprintf("u%07d", r.IntN(1e7)), false},
		{"attempt", fmt.Sprint(r.IntN(3)), true},
		{"region", "eu-central", false},
	}
	return pairs[:8+r.IntN(8)]
}

// logfmtLine makes a line of logfmt.
func logfmtLine(r *rand.Rand) []byte {
	var line []byte
	for _, p := range makePairs(r) {
		line = append(append(line, p.key...), '=')
		if strings.ContainsAny(p.value, ` "`) {
			line = fmt.Appendf(line, "%q ", p.value)
		} else {
			line = append(append(line, p.value...), ' ')
		}
	}
	line[len(line)-1] = '\n'
	return line
}

// jsonLine makes a line of JSON.
func jsonLine(r *rand.Rand) []byte {
	line := []byte("{")
	for _, p := range makePairs(r) {
		if p.number {
			line = fmt.Appendf(line, "%q:%s,", p.key, p.value)
		} else {
			line = fmt.Appendf(line, "%q:%q,", p.key, p.value)
		}
	}
	return append(line[:len(line)-1], "}\n"...)
}

// makeBlock makes lines, the same ones each time.
func makeBlock(line func(*rand.Rand) []byte, lines int) (block []byte) {
	r := rand.New(rand.NewPCG(1, 2))
	for range lines {
		block = append(block, line(r)...)
	}
	return block
}

// uglyBlock makes lines of all that is hard: text, escapes everywhere, other
// scripts, what is not UTF-8, control characters, keys that come again.
func uglyBlock(times int) []byte {
	return bytes.Repeat([]byte(strings.Join([]string{
		`java.lang.IllegalStateException: cannot open "C:\temp\x"`,
		`	at pl.example.Main.run(Main.java:42) ~[app.jar!/:1.2]`,
		`level=warn msg="\"quoted\" \\ and \u0142\ud83d\ude00 \t tabs" path=C:\dir\file`,
		`użytkownik=Żółw msg="zażółć gęślą jaźń, 日本語のログ"`,
		"a=\xff\xfe\x80 b=\"\x01\x02\x7f\xc3\" c",
		`a=1 a=2 a=3 b a=4 b`,
		`{"msg":"\u0142\n\"x\"","\u0061":[{"b":[1,2,{"c":null}]}],"a":-1.5e10,"ok":true}`,
		`{"truncated":"yes`,
		`   `,
		``,
		`x="not closed`,
		``,
	}, "\n")), times)
}

func BenchmarkLogfmt(b *testing.B) { benchmarkBlock(b, makeBlock(logfmtLine, 5000)) }
func BenchmarkJSON(b *testing.B)   { benchmarkBlock(b, makeBlock(jsonLine, 5000)) }
func BenchmarkUgly(b *testing.B)   { benchmarkBlock(b, uglyBlock(100)) }

func newBenchConverter(b *testing.B) *Converter {
	return newConverter(b, Options{
		Fields:     System{Host: "host-1.example", Region: "eu", Zone: "eu-1", InstanceID: "orders.5f3a", ServiceID: "1234"}.Fields(),
		IgnoreKeys: []string{"password"},
		Rename:     map[string]string{"logger": "logger_name"},
	})
}

func benchmarkBlock(b *testing.B, block []byte) {
	c := newBenchConverter(b)
	dst, _, _ := c.AppendBlock(nil, block)
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		dst, _, _ = c.AppendBlock(dst[:0], block)
	}
}

// BenchmarkSeedLogfmt goes the usual way: go-logfmt, a map, and the encoder of
// encoding/json.
func BenchmarkSeedLogfmt(b *testing.B) {
	block := makeBlock(logfmtLine, 5000)
	var out bytes.Buffer
	b.SetBytes(int64(len(block)))
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		encoder := json.NewEncoder(&out)
		decoder := logfmt.NewDecoder(bytes.NewReader(block))
		for decoder.ScanRecord() {
			entry := map[string]any{}
			for decoder.ScanKeyval() {
				entry[string(decoder.Key())] = string(decoder.Value())
			}
			if err := encoder.Encode(seedFrame(entry)); err != nil {
				b.Fatal(err)
			}
		}
		if err := decoder.Err(); err != nil {
			b.Fatal(err)
		}
	}
}

// seedFrame makes an entry a document.
func seedFrame(entry map[string]any) map[string]any {
	entry["srchost"], entry["region"], entry["zone"], entry["instance-id"], entry["scid"] = "host-1.example", "eu", "eu-1", "orders.5f3a", 1234
	document := map[string]any{"@timestamp": entry["time"], "@version": "1", "message": entry["msg"]}
	for key, value := range entry {
		switch key {
		case "time", "msg", "password":
		case "logger":
			document["logger_name"] = value
		default:
			document[key] = value
		}
	}
	return document
}
