package scrape

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logfmt/logfmt"
	"golang.org/x/sys/unix"
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
func logfmtLine(r *rand.Rand) []byte { return asLogfmt(makePairs(r)) }

// shuffledLine makes one whose keys stand in any order.
func shuffledLine(r *rand.Rand) []byte {
	pairs := makePairs(r)
	r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return asLogfmt(pairs)
}

func asLogfmt(pairs []pair) (line []byte) {
	for _, p := range pairs {
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

// The benchmarks report megabytes of input for each second of CPU time, garbage
// collection included, which a busy machine falsifies less than the time that passes, and of the round
// that a tenth of all rounds were faster than.

// BenchmarkLogfmt compares with the usual way: go-logfmt, a map, encoding/json.
func BenchmarkLogfmt(b *testing.B) { compare(b, makeBlock(logfmtLine, 5000), usualLogfmt) }

// BenchmarkShuffled converts lines of which none has its keys where another has them.
func BenchmarkShuffled(b *testing.B) { compare(b, makeBlock(shuffledLine, 5000), nil) }

// BenchmarkJSON compares with encoding/json, through a map.
func BenchmarkJSON(b *testing.B) { compare(b, makeBlock(jsonLine, 5000), usualJSON) }

// BenchmarkUgly converts lines that take the slow ways.
func BenchmarkUgly(b *testing.B) { compare(b, uglyBlock(100), nil) }

// compare converts a block and has it converted by another in turns.
func compare(b *testing.B, block []byte, usual func(*json.Encoder, []byte) error) {
	c := newConverter(b, Options{
		Fields:     System{Host: "host-1.example", Region: "eu", Zone: "eu-1", InstanceID: "orders.5f3a", ServiceID: "1234"}.Fields(),
		IgnoreKeys: []string{"password"},
		Rename:     map[string]string{"logger": "logger_name"},
	})
	out, _, _ := c.AppendBlock(nil, block)
	var buffer bytes.Buffer
	var times, usualTimes []time.Duration
	b.ReportAllocs()
	for round := 0; b.Loop(); round++ {
		times = append(times, cpuTime(b, func() {
			out, _, _ = c.AppendBlock(out[:0], block)
		}))
		if usual == nil || round%10 > 0 { // the usual way takes that much longer
			continue
		}
		b.StopTimer()
		usualTimes = append(usualTimes, cpuTime(b, func() {
			buffer.Reset()
			if err := usual(json.NewEncoder(&buffer), block); err != nil {
				b.Fatal(err)
			}
		}))
		b.StartTimer()
	}
	speed := float64(len(block)) / 1e6 / firstDecile(times).Seconds()
	b.ReportMetric(speed, "MB/cpu-s")
	if usual != nil {
		usualSpeed := float64(len(block)) / 1e6 / firstDecile(usualTimes).Seconds()
		b.ReportMetric(usualSpeed, "usual-MB/cpu-s")
		b.ReportMetric(speed/usualSpeed, "times-usual")
	}
}

// firstDecile returns the time that a tenth of all rounds stayed below.
func firstDecile(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/10]
}

// cpuTime returns the CPU time that the process spends on a function.
func cpuTime(b *testing.B, f func()) time.Duration {
	b.Helper()
	var before, after unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &before)
	f()
	if err = errors.Join(err, unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &after)); err != nil {
		b.Fatal(err)
	}
	return time.Duration(after.Nano() - before.Nano())
}

// usualLogfmt converts lines of logfmt the usual way.
func usualLogfmt(encoder *json.Encoder, block []byte) error {
	decoder := logfmt.NewDecoder(bytes.NewReader(block))
	for decoder.ScanRecord() {
		entry := map[string]any{}
		for decoder.ScanKeyval() {
			entry[string(decoder.Key())] = string(decoder.Value())
		}
		if err := encoder.Encode(usualDocument(entry)); err != nil {
			return err
		}
	}
	return decoder.Err()
}

// usualJSON converts lines of JSON the usual way.
func usualJSON(encoder *json.Encoder, block []byte) error {
	for line := range bytes.Lines(block) {
		entry := map[string]any{}
		if err := json.Unmarshal(line, &entry); err != nil {
			return err
		}
		if err := encoder.Encode(usualDocument(entry)); err != nil {
			return err
		}
	}
	return nil
}

// usualDocument makes an entry a document.
func usualDocument(entry map[string]any) map[string]any {
	document := map[string]any{
		"@timestamp": entry["time"], "@version": "1", "message": entry["msg"],
		"srchost": "host-1.example", "region": "eu", "zone": "eu-1", "instance-id": "orders.5f3a", "scid": 1234,
	}
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
