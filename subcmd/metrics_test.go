package subcmd

import (
	"strings"
	"testing"
	"time"

	"pm.example/socket"
)

// What a config may call things stands in labels without breaking the text.
func TestExpose(t *testing.T) {
	list := []measured{{
		Instance: socket.Instance{Name: `a"b`, Program: `a"b`, Scrape: []byte("{}"), Output: &socket.Output{Problem: "full", DroppedLines: 2}},
		scrape:   countersDocument{Receivers: []receiverDocument{{To: "file:a\\b\nc", Sent: 1 << 53, WriteTime: 1e-9}}},
	}}
	text := string(expose(socket.DaemonInfo{Version: "1"}, time.Unix(1_800_000_000, 5e8), list))
	for _, want := range []string{
		"# TYPE pm_build_info gauge\npm_build_info{version=\"1\"} 1\n",
		"\npm_start_time_seconds 1800000000.5\n",
		`pm_output_waits{instance="a\"b",program="a\"b"} 1`,
		`pm_output_dropped_lines_total{instance="a\"b",program="a\"b"} 2`,
		`pm_ship_sent_lines_total{instance="a\"b",program="a\"b",to="file:a\\b\nc"} 9007199254740992`,
		`pm_ship_write_seconds_total{instance="a\"b",program="a\"b",to="file:a\\b\nc"} 0.000000001`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
