package subcmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logfmt/logfmt"
)

// benchRole makes this test binary the program that is measured: pm, or the way
// that log lines usually go.
const benchRole = "PM_BENCH_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(benchRole) {
	case "pm":
		os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
	case "seed":
		if err := seedShip(os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// seedShip reads lines with go-logfmt, makes maps of them, encodes these with
// encoding/json, and sends each by itself.
func seedShip(network, address string) error {
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		document := map[string]any{"@version": 1}
		for d := logfmt.NewDecoder(bytes.NewReader(lines.Bytes())); d.ScanRecord(); {
			for d.ScanKeyval() {
				key := string(d.Key())
				if name := map[string]string{"time": "@timestamp", "msg": "message"}[key]; name != "" {
					key = name
				}
				document[key] = string(d.Value())
			}
		}
		text, err := json.Marshal(document)
		if err != nil {
			return err
		}
		if _, err := conn.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	return conn.Close()
}

// serviceLogLines makes n lines like those of a service: about 220 bytes, 12 pairs.
func serviceLogLines(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "time=2026-11-22T10:00:%02d.%03dZ level=info logger=http.access method=GET path=/api/v1/items/%d status=200 duration=1.%02dms bytes=%d remote=10.1.2.%d trace=4bf92f3577b34da6 msg=\"request served in good time\" user=u%d\n",
			i%60, i%1000, i*7919%1e6, i%97, i, i%255, i%1000)
	}
	return b.Bytes()
}

// BenchmarkScrapeLogs measures the CPU time, the kernel's included, of a process
// that reads lines from a pipe, converts them and sends them: pm, the usual way and,
// if it is there, syslog-ng, in turns.
func BenchmarkScrapeLogs(b *testing.B) {
	for _, network := range []string{"tcp", "udp"} {
		b.Run(network, func(b *testing.B) {
			address := benchReceiver(b, network)
			const lines = 400_000
			block := serviceLogLines(lines / 100)
			peer := syslogNG(b, network, address)
			var pm, seed, syslogNG time.Duration // of CPU
			for b.Loop() {
				pm += benchShip(b, block, 100, inRole("pm", "scrape-logs", "-q", "--to", network+"://"+address))
				seed += 10 * benchShip(b, block, 10, inRole("seed", network, address)) // a tenth of the lines: it is slow
				if peer != nil {
					syslogNG += 10 * benchShip(b, block, 10, exec.Command(peer[0], peer[1:]...))
				}
			}
			perSecond := func(cpu time.Duration) float64 { return float64(b.N) / cpu.Seconds() }
			b.ReportMetric(perSecond(pm)*float64(100*len(block))/1e6, "pm-MB/cpu-s")
			b.ReportMetric(perSecond(pm)*lines, "pm-lines/cpu-s")
			b.ReportMetric(perSecond(seed)*float64(100*len(block))/1e6, "seed-MB/cpu-s")
			b.ReportMetric(perSecond(pm)/perSecond(seed), "times-seed")
			if peer != nil {
				b.ReportMetric(perSecond(syslogNG)*float64(100*len(block))/1e6, "syslog-ng-MB/cpu-s")
				b.ReportMetric(perSecond(pm)/perSecond(syslogNG), "times-syslog-ng")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// syslogNG returns the command of a syslog-ng that parses key=value pairs and sends
// JSON, and ends with its input; nil if there is none.
func syslogNG(b *testing.B, network, address string) []string {
	path, err := exec.LookPath("syslog-ng")
	if err != nil {
		return nil
	}
	dir := b.TempDir()
	config := filepath.Join(dir, "conf")
	host, port, _ := net.SplitHostPort(address)
	text := fmt.Sprintf(`@version: 3.38
options { stats-freq(0); };
source pipe { stdin(flags(no-parse)); };
parser pairs { kv-parser(prefix(".kv.")); };
destination logstash { network("%s" port(%s) transport("%s") template("$(format-json --key .kv.* --rekey .kv.* --shift 4)\n")); };
log { source(pipe); parser(pairs); destination(logstash); flags(flow-control); };
`, host, port, network)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return []string{
		path, "-F", "--no-caps", "-f", config,
		"-R", filepath.Join(dir, "persist"), "-c", filepath.Join(dir, "ctl"), "-p", filepath.Join(dir, "pid"),
	}
}

// inRole is the command that is this test binary in a role.
func inRole(role string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), benchRole+"="+role)
	return cmd
}

// benchReceiver takes what comes and forgets it.
func benchReceiver(b *testing.B, network string) (address string) {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		go func() { // ends when the socket is closed
			for buffer := make([]byte, 1<<16); ; {
				if _, _, err := c.ReadFrom(buffer); err != nil {
					return
				}
			}
		}()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(struct{ io.Writer }{io.Discard}, c)
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}

// benchShip lets a process ship the block so many times, and returns the CPU time
// that it took.
func benchShip(b *testing.B, block []byte, times int, cmd *exec.Cmd) time.Duration {
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	err = cmd.Start()
	_ = r.Close()
	for range times {
		if err == nil {
			_, err = w.Write(block)
		}
	}
	if err := errors.Join(err, w.Close(), cmd.Wait()); err != nil {
		b.Fatalf("%q: %v", cmd.Args, err)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}
