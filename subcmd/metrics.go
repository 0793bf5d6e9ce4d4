package subcmd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"pm.example/socket"
)

// metric is a family of what Prometheus is told: the samples of one name.
type metric struct {
	name, kind, help string
	of               func(i *measured, tell sample) // tells those of an instance
}

// sample takes a value, with pairs of a label's name and value.
type sample func(value float64, labels ...string)

// measured is an instance, with the counters of its lines that are shipped, if any are.
type measured struct {
	socket.Instance
	scrape countersDocument
}

// instanceMetrics are told of each instance, in this order.
var instanceMetrics = []metric{
	{"pm_instance_state", "gauge", "1 for the state that the instance is in.", func(i *measured, tell sample) { tell(1, "state", i.State) }},
	{"pm_instance_ok", "gauge", "Whether the instance is in its desired state.", func(i *measured, tell sample) { tell(truth(i.OK)) }},
	{"pm_instance_uptime_seconds", "gauge", "How long the task has run; 0 if none does.", func(i *measured, tell sample) { tell(i.UptimeSeconds) }},
	{"pm_instance_restarts_total", "counter", "How often the instance was restarted.", func(i *measured, tell sample) { tell(float64(i.Restarts)) }},
	{"pm_output_waits", "gauge", "Whether something that pm writes for the instance cannot be written.", func(i *measured, tell sample) {
		tell(truth(i.Output != nil && i.Output.Problem != ""))
	}},
	{"pm_output_dropped_lines_total", "counter", "Lines that were dropped by logs.on_full since boot, of all who share the files.", func(i *measured, tell sample) {
		tell(float64(i.output().DroppedLines))
	}},
	{"pm_output_dropped_bytes_total", "counter", "Their bytes.", func(i *measured, tell sample) { tell(float64(i.output().DroppedBytes)) }},
	{"pm_scrape_received_lines_total", "counter", "Lines that were read to be shipped.", func(i *measured, tell sample) {
		if i.Scrape != nil {
			tell(float64(i.scrape.Received))
		}
	}},
	{"pm_scrape_lines_total", "counter", "What became of them.", func(i *measured, tell sample) {
		if i.Scrape != nil {
			tell(float64(i.scrape.Converted), "result", "converted")
			tell(float64(i.scrape.Wrapped), "result", "wrapped")
			tell(float64(i.scrape.Blank), "result", "blank")
		}
	}},
	{"pm_scrape_dropped_lines_total", "counter", "Lines that were dropped before they were given to receivers.", func(i *measured, tell sample) {
		tellReasons(tell, i.scrape.Dropped)
	}},
	{"pm_scrape_missed_bytes_total", "counter", "Bytes that were no longer kept when they were to be read.", func(i *measured, tell sample) {
		if i.Scrape != nil {
			tell(float64(i.scrape.MissedBytes))
		}
	}},
	{"pm_ship_sent_lines_total", "counter", "Lines that were written to the receiver, each counted once.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.Sent) })},
	{"pm_ship_sent_bytes_total", "counter", "Their bytes.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.SentBytes) })},
	{"pm_ship_resent_lines_total", "counter", "Lines that were written once more.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.Resent) })},
	{"pm_ship_spooled_lines_total", "counter", "Lines that went through the spool.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.Spooled) })},
	{"pm_ship_dropped_lines_total", "counter", "Lines that were not sent.", func(i *measured, tell sample) {
		for _, r := range i.scrape.Receivers {
			tellReasons(tell, r.Dropped, "to", r.To)
		}
	}},
	{"pm_ship_connects_total", "counter", "Connections that were made.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.Connects) })},
	{"pm_ship_failures_total", "counter", "Attempts to connect that failed, and connections that ended.", ofReceivers(func(r *receiverDocument) float64 { return float64(r.Failures) })},
	{"pm_ship_write_seconds_total", "counter", "The time that writing took.", ofReceivers(func(r *receiverDocument) float64 { return r.WriteTime })},
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (m *measured) output() socket.Output {
	if m.Output == nil {
		return socket.Output{}
	}
	return *m.Output
}

// ofReceivers tells a value of each receiver of an instance.
func ofReceivers(value func(*receiverDocument) float64) func(*measured, sample) {
	return func(i *measured, tell sample) {
		for n := range i.scrape.Receivers {
			r := &i.scrape.Receivers[n]
			tell(value(r), "to", r.To)
		}
	}
}

// tellReasons tells how many lines were dropped for each reason.
func tellReasons(tell sample, dropped map[string]uint64, labels ...string) {
	for _, reason := range slices.Sorted(maps.Keys(dropped)) {
		tell(float64(dropped[reason]), append(slices.Clip(labels), "reason", reason)...)
	}
}

// Metrics tells how all instances are, and what has become of what they print.
func (s *service) Metrics(ctx context.Context) (socket.Exposition, error) {
	status, err := s.Status(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := make([]measured, len(status.Instances))
	for n := range list {
		list[n].Instance = status.Instances[n]
		if list[n].Scrape == nil {
			continue
		}
		if err := json.Unmarshal(list[n].Scrape, &list[n].scrape); err != nil {
			return nil, fmt.Errorf("cannot read the counters of %s: %w", list[n].Name, err)
		}
	}
	return expose(status.Daemon, s.started, list), nil
}

// expose writes metrics in Prometheus's text format.
func expose(daemon socket.DaemonInfo, started time.Time, list []measured) (text socket.Exposition) {
	text = appendHead(text, "pm_build_info", "gauge", "The version of the daemon.")
	text = appendSample(text, "pm_build_info", 1, "version", daemon.Version)
	text = appendHead(text, "pm_start_time_seconds", "gauge", "When the daemon's worker was started, since 1970; the counters of shipped lines begin then.")
	text = appendSample(text, "pm_start_time_seconds", float64(started.UnixMicro())/1e6)
	for _, m := range instanceMetrics {
		text = appendHead(text, m.name, m.kind, m.help)
		for n := range list {
			own := []string{"instance", list[n].Name, "program", list[n].Program}
			if list[n].Group != "" {
				own = append(own, "group", list[n].Group)
			}
			m.of(&list[n], func(value float64, labels ...string) {
				text = appendSample(text, m.name, value, append(slices.Clip(own), labels...)...)
			})
		}
	}
	return text
}

func appendHead(text []byte, name, kind, help string) []byte {
	return fmt.Appendf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// labelEscapes are what the values of labels must not hold as it is.
var labelEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func appendSample(text []byte, name string, value float64, labels ...string) []byte {
	text = append(text, name...)
	before := byte('{')
	for n := 0; n < len(labels); n += 2 {
		text = append(text, before)
		text = append(append(text, labels[n]...), `="`...)
		text = append(append(text, labelEscapes.Replace(labels[n+1])...), '"')
		before = ','
	}
	if len(labels) > 0 {
		text = append(text, '}')
	}
	return append(strconv.AppendFloat(append(text, ' '), value, 'f', -1, 64), '\n')
}
