package subcmd

import (
	"errors"
	"fmt"
	"strconv"
)

// serviceLogPrefixes are what the names of variables begin with that stand for
// flags of pm scrape-logs; earlier ones win.
var serviceLogPrefixes = []string{"PM_EXECUTOR_SERVICELOG_", "ALLEGRO_EXECUTOR_SERVICELOG_"}

// serviceLog returns the value of a variable, and the name under which it was
// found. bare is a name without prefix that counts too, or "".
func serviceLog(getenv func(string) string, name, bare string) (value, found string) {
	for _, prefix := range serviceLogPrefixes {
		if value := getenv(prefix + name); value != "" {
			return value, prefix + name
		}
	}
	if bare != "" {
		return getenv(bare), bare
	}
	return "", ""
}

// fromEnvironment fills in flags that are not given from variables. All that do
// not make sense are an error.
func (o *scrapeLogsOptions) fromEnvironment(getenv func(string) string, given func(flag string) bool) error {
	for _, v := range []struct {
		name, bare, flag string
		take             func(text string) error
	}{
		{"IGNORE_KEYS", "", "ignore-key", o.ignore.Set},
		{"BUFFER_SIZE", "", "on-full", o.takeBufferSize},
		{"LOGSTASH_RATE_LIMIT", "", "rate-limit", takeInt(&o.rate)},
		{"LOGSTASH_SIZE_LIMIT", "", "size-limit", o.size.Set},
		{"LOGSTASH_DISCOVERY_REFRESH_INTERVAL", "", "refresh", (*timeSpan)(&o.refresh).Set},
		{"LOGSTASH_TCP_KEEP_ALIVE", "TCP_KEEP_ALIVE", "keep-alive", (*timeSpan)(&o.keepAlive).Set},
		{"LOGSTASH_TCP_TIMEOUT", "TCP_TIMEOUT", "connect-timeout", (*timeSpan)(&o.timeout).Set},
	} {
		text, name := serviceLog(getenv, v.name, v.bare)
		if text == "" || given(v.flag) {
			continue
		}
		if err := v.take(text); err != nil {
			return fmt.Errorf("variable %s: %q is %w", name, text, err)
		}
	}
	if !given("to") {
		return o.takeReceiver(getenv)
	}
	return nil
}

func takeInt(to *int) func(string) error {
	return func(text string) (err error) {
		if *to, err = strconv.Atoi(text); err != nil || *to < 0 {
			return errors.New("not a number from 0 on")
		}
		return nil
	}
}

// takeBufferSize reads how many lines may wait before others are dropped; 0 lets
// the program wait.
func (o *scrapeLogsOptions) takeBufferSize(text string) error {
	var lines int
	if err := takeInt(&lines)(text); err != nil {
		return err
	}
	if lines > 0 {
		o.onFull, o.bufferLines = "drop", lines
	}
	return nil
}

// takeReceiver reads protocol and address, or the name of a service in Consul.
func (o *scrapeLogsOptions) takeReceiver(getenv func(string) string) error {
	protocol, _ := serviceLog(getenv, "LOGSTASH_PROTOCOL", "")
	protocol = orElse(protocol, "tcp")
	if service, _ := serviceLog(getenv, "LOGSTASH_DISCOVERY_SERVICE_NAME", ""); service != "" {
		return o.to.Set("consul+" + protocol + "://" + service)
	}
	if address, _ := serviceLog(getenv, "LOGSTASH_ADDRESS", ""); address != "" {
		return o.to.Set(protocol + "://" + address)
	}
	return nil
}
