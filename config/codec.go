package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// codec reads and shows the values of one type. What show returns is nil for
// "not set", else a string, bool, int, float64, []any or pairs.
type codec[V any] struct {
	name     string // as the documentation calls the type
	accepted string
	repeated bool // as a flag it may be given several times
	secret   bool // values are never shown in messages
	schema   pairs
	read     func(r *reader, n *node) (V, bool)
	show     func(V) any
}

// pair is one key of pairs.
type pair struct {
	key   string
	value any
}

// pairs is an object whose keys keep their order.
type pairs []pair

// schemaText is the schema of a string.
var schemaText = pairs{{"type", "string"}}

// schemaNumber is the schema of a number, which may also stand in a string.
func schemaNumber(kind string) pairs { return pairs{{"type", []any{kind, "string"}}} }

// schemaList is the schema of a list of strings, of which one may stand alone.
var schemaList = pairs{{"type", []any{"string", "array"}}, {"items", schemaText}}

// textCodec is any string.
var textCodec = codec[string]{
	name: "string", accepted: "a string", schema: schemaText,
	read: func(r *reader, n *node) (string, bool) { return r.text(n) },
	show: showText,
}

func showText(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// pathCodec is a path; a relative one starts at the file's directory.
var pathCodec = codec[string]{
	name: "path", accepted: "a path", schema: schemaText,
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.text(n)
		return r.path(s), ok
	},
	show: showText,
}

// Attached is the stdin of a program that reads what pm attach sends.
const Attached = "attach"

// inputCodec is where input comes from: a path, or Attached.
var inputCodec = codec[string]{
	name: "path or word", accepted: "a path, " + Attached, schema: schemaText,
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.text(n)
		if s == Attached {
			return s, ok
		}
		return r.path(s), ok
	},
	show: showText,
}

// outputCodec is where output goes: a path, or one of the given words.
func outputCodec(words ...string) codec[string] {
	return codec[string]{
		name: "path or word", accepted: "a path, " + strings.Join(words, ", "), schema: schemaText,
		read: func(r *reader, n *node) (string, bool) {
			s, ok := r.text(n)
			if s == "/dev/null" {
				return "discard", ok
			}
			if slices.Contains(words, s) {
				return s, ok
			}
			if word, path := OutputTarget(s); path != "" {
				return word + ":" + r.path(path), ok
			}
			return r.path(s), ok
		},
		show: showText,
	}
}

// wordCodec is one of a few words; other spellings stand for one of them.
func wordCodec(words []string, spellings map[string]string) codec[string] {
	accepted := oneOf(words)
	return codec[string]{
		name: "word", accepted: accepted,
		schema: pairs{{"type", []any{"string", "boolean"}}},
		read: func(r *reader, n *node) (string, bool) {
			s, ok := r.word(n)
			lower := strings.ToLower(s)
			if word, known := spellings[lower]; known {
				return word, ok
			}
			if ok && !slices.Contains(words, lower) {
				r.faultHint(n, "not known", accepted, didYouMean(lower, words))
				return "", false
			}
			return lower, ok
		},
		show: showText,
	}
}

// oneOf lists words as a sentence does.
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

var boolWords = map[string]bool{"true": true, "yes": true, "on": true, "false": false, "no": false, "off": false}

// boolCodec is true or false.
var boolCodec = codec[bool]{
	name: "boolean", accepted: "true or false", schema: pairs{{"type", "boolean"}},
	read: func(r *reader, n *node) (bool, bool) {
		s, ok := r.word(n)
		value, known := boolWords[strings.ToLower(s)]
		if ok && !known {
			r.fault(n, "neither true nor false", "true or false")
		}
		return value, ok && known
	},
	show: func(b bool) any { return b },
}

// intCodec is a whole number from least to most.
func intCodec(least, most int) codec[int] {
	return codec[int]{
		name: "integer", accepted: fmt.Sprintf("%d to %d", least, most), schema: schemaNumber("integer"),
		read: func(r *reader, n *node) (int, bool) { return r.number(n, least, most, "") },
		show: func(i int) any { return i },
	}
}

// number reads a whole number; instead names what else is accepted.
func (r *reader) number(n *node, least, most int, instead string) (int, bool) {
	s, ok := r.word(n)
	if !ok {
		return 0, false
	}
	accepted := fmt.Sprintf("%d to %d%s", least, most, instead)
	value, err := strconv.Atoi(s)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		r.fault(n, "not a whole number", accepted)
		return 0, false
	}
	if err != nil || value < least || value > most {
		r.fault(n, outOfRange(s, least), accepted)
		return 0, false
	}
	return value, true
}

func outOfRange(text string, least int) string {
	if strings.HasPrefix(text, "-") && least >= 0 {
		return "negative"
	}
	return "out of range"
}

// orNil makes a codec for a value that may be missing.
func orNil[V any](c codec[V]) codec[*V] {
	return codec[*V]{
		name: c.name, accepted: c.accepted, schema: c.schema,
		read: func(r *reader, n *node) (*V, bool) {
			value, ok := c.read(r, n)
			return &value, ok
		},
		show: func(v *V) any {
			if v == nil {
				return nil
			}
			return c.show(*v)
		},
	}
}

// portCodec is a port; 0 stands for none.
var portCodec = func() codec[int] {
	c := intCodec(0, 65535)
	c.show = func(port int) any {
		if port == 0 {
			return nil
		}
		return port
	}
	return c
}()

// retriesCodec is a number of retries; unlimited is kept as -1.
var retriesCodec = codec[int]{
	name: "integer or word", accepted: "0 to 1000000 or unlimited", schema: schemaNumber("integer"),
	read: func(r *reader, n *node) (int, bool) {
		if s, ok := r.quietly(n); ok && strings.EqualFold(s, "unlimited") {
			return -1, true
		}
		return r.number(n, 0, 1_000_000, " or unlimited")
	},
	show: func(i int) any {
		if i < 0 {
			return "unlimited"
		}
		return i
	},
}

// numprocsCodec is a number of instances. In YAML, as in taskmaster, 0 means 1.
var numprocsCodec = func() codec[int] {
	c := intCodec(0, 10_000)
	plain := c.read
	c.read = func(r *reader, n *node) (int, bool) {
		value, ok := plain(r, n)
		if r.yaml && value == 0 {
			value = 1
		}
		return value, ok
	}
	return c
}()

// floatCodec is a number from least to most.
func floatCodec(least, most float64) codec[float64] {
	accepted := fmt.Sprintf("%g to %g", least, most)
	return codec[float64]{
		name: "number", accepted: accepted, schema: schemaNumber("number"),
		read: func(r *reader, n *node) (float64, bool) {
			s, ok := r.word(n)
			if !ok {
				return 0, false
			}
			value, err := strconv.ParseFloat(s, 64)
			if err != nil || !(value >= least && value <= most) {
				r.fault(n, "not a number in the range", accepted)
				return 0, false
			}
			return value, true
		},
		show: func(f float64) any { return f },
	}
}

const (
	longest         = 8760 * time.Hour
	durationsAccept = "0 to 8760h, as 10s, 1m30s or plain seconds"
)

// durationCodec is a time span: "10s" or plain seconds.
var durationCodec = codec[time.Duration]{
	name: "duration", accepted: durationsAccept, schema: schemaNumber("number"),
	read: func(r *reader, n *node) (time.Duration, bool) {
		s, ok := r.word(n)
		if !ok {
			return 0, false
		}
		d, err := parseDuration(s)
		if err != nil {
			r.fault(n, err.Error(), durationsAccept)
		}
		return d, err == nil
	},
	show: func(d time.Duration) any { return formatDuration(d) },
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if seconds, notNumber := strconv.ParseFloat(s, 64); notNumber == nil && !math.IsNaN(seconds) {
		if math.Abs(seconds) > longest.Seconds() {
			return 0, errors.New("out of range")
		}
		d, err = time.Duration(math.Round(seconds*1e9)), nil
	}
	switch {
	case err != nil:
		return 0, errors.New("not a duration")
	case d < 0:
		return 0, errors.New("negative")
	case d > longest:
		return 0, errors.New("out of range")
	}
	return d, nil
}

// formatDuration is the shortest way to write d: 1m and not 1m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// umaskCodec is an octal file mode mask. The text as it stands counts: YAML
// and the habit of forty years say 022, and mean octal.
var umaskCodec = codec[int]{
	name: "octal mode", accepted: "000 to 777", schema: pairs{{"type", []any{"string", "integer"}}},
	read: readUmask,
	show: func(mask int) any { return fmt.Sprintf("%03o", mask) },
}

func readUmask(r *reader, n *node) (int, bool) {
	if _, ok := r.word(n); !ok {
		return 0, false
	}
	text := n.raw
	if n.isString {
		text, _ = r.quietly(n)
	}
	digits := strings.TrimPrefix(text, "0o")
	if !n.isString && digits == text && text != "0" {
		r.faultHint(n, "not written as an octal mode", "000 to 777", quoteUmask(text))
		return 0, false
	}
	mask, err := strconv.ParseUint(digits, 8, 32)
	if err != nil {
		r.fault(n, "not an octal mode", "000 to 777")
		return 0, false
	}
	if mask > 0o777 {
		r.fault(n, "out of range", "000 to 777")
		return 0, false
	}
	return int(mask), true
}

// quoteUmask suggests the octal mode that was probably meant by a number.
func quoteUmask(text string) string {
	if mask, err := strconv.ParseUint(text, 8, 32); err != nil || mask > 0o777 {
		return `write an octal mode in quotes, such as "022"`
	}
	return fmt.Sprintf("write %q", text)
}

// commandCodec is a command: a line split like a shell's, or a list of words.
var commandCodec = codec[[]string]{
	name: "command", accepted: "a command line, or a list of its words",
	schema: pairs{{"type", []any{"string", "array"}}, {"items", pairs{{"type", []any{"string", "number", "boolean"}}}}},
	read:   readCommand,
	show: func(words []string) any {
		if len(words) == 0 {
			return nil
		}
		return joinWords(words)
	},
}

func readCommand(r *reader, n *node) ([]string, bool) {
	words, ok := r.commandWords(n)
	if ok && (len(words) == 0 || words[0] == "") {
		r.fault(n, "empty command", "a program to run and its arguments")
		return nil, false
	}
	return words, ok
}

func (r *reader) commandWords(n *node) ([]string, bool) {
	if n.kind == listNode {
		return r.eachText(n, r.loose)
	}
	if _, ok := r.scalar(n); !ok {
		return nil, false
	}
	if !n.isString {
		r.fault(n, "not a command", "a command line, or a list of its words")
		return nil, false
	}
	words, err := splitWords(n.text, r.lookup)
	if err != nil {
		r.fault(n, err.Error(), "")
	}
	return words, err == nil
}

// listCodec is a list of strings; one may stand without brackets.
var listCodec = codec[[]string]{
	name: "list of strings", accepted: "a list of strings", repeated: true, schema: schemaList,
	read: func(r *reader, n *node) ([]string, bool) { return r.eachText(n, r.text) },
	show: showList,
}

// eachText reads every element of a list.
func (r *reader) eachText(n *node, read func(*node) (string, bool)) ([]string, bool) {
	var texts []string
	all := true
	for _, item := range n.elements() {
		text, ok := read(item)
		texts, all = append(texts, text), all && ok
	}
	return texts, all
}

func showList(texts []string) any {
	if len(texts) == 0 {
		return nil
	}
	items := make([]any, len(texts))
	for i, text := range texts {
		items[i] = text
	}
	return items
}

// envFileCodec is a list of paths; a "-" before one allows it to be missing.
var envFileCodec = func() codec[[]string] {
	c := listCodec
	c.name, c.accepted = "list of paths", `paths; a "-" before one allows it to be missing`
	c.read = func(r *reader, n *node) ([]string, bool) {
		return r.eachText(n, func(item *node) (string, bool) {
			text, ok := r.text(item)
			path, optional := strings.CutPrefix(text, "-")
			if ok && path == "" {
				r.fault(item, "no path", c.accepted)
				return "", false
			}
			if optional {
				return "-" + r.path(path), ok
			}
			return r.path(path), ok
		})
	}
	return c
}()

// wordsCodec is a list of the given words.
func wordsCodec(words []string) codec[[]string] {
	c := listCodec
	c.name, c.accepted = "list of words", oneOf(words)
	c.read = func(r *reader, n *node) ([]string, bool) {
		return r.eachText(splitItems(n), func(item *node) (string, bool) {
			text, ok := r.text(item)
			if ok && !slices.Contains(words, text) {
				r.faultHint(item, "not known", c.accepted, didYouMean(text, words))
				return "", false
			}
			return text, ok
		})
	}
	return c
}

// splitItems makes a list of a single text such as "0, 2".
func splitItems(n *node) *node {
	if n.kind != scalarNode || !n.isString {
		return n
	}
	return list(n.pos, strings.FieldsFunc(n.text, func(c rune) bool { return strings.ContainsRune(", \t\r\n", c) }))
}

// mapCodec is a table of strings. As a flag it is KEY=VALUE, repeated.
func mapCodec(what string, secret bool, validName func(string) bool) codec[map[string]string] {
	c := codec[map[string]string]{
		name: "table of strings", accepted: "a table of " + what, repeated: true, secret: secret,
		schema: pairs{{"type", "object"}, {"additionalProperties", pairs{{"type", []any{"string", "number", "boolean", "null"}}}}},
		show:   showMap,
	}
	c.read = func(r *reader, n *node) (map[string]string, bool) {
		if n.kind != tableNode {
			r.fault(n, "not a table", c.accepted)
			return nil, false
		}
		return r.texts(n, what, validName)
	}
	return c
}

func (r *reader) texts(n *node, what string, validName func(string) bool) (map[string]string, bool) {
	texts, all := map[string]string{}, true
	outer := r.key
	for _, e := range n.entries {
		r.key = outer + "." + e.key
		text, ok := r.loose(e.value)
		if !validName(e.key) {
			r.faultAt(e.pos, fmt.Sprintf("%q cannot be a name in a table of %s", e.key, what))
			ok = false
		}
		texts[e.key], all = text, all && ok
	}
	r.key = outer
	return texts, all
}

func showMap(texts map[string]string) any {
	if len(texts) == 0 {
		return nil
	}
	return sortedPairs(texts)
}

func validEnvName(name string) bool { return name != "" && !strings.ContainsAny(name, "=\x00") }

func validLabel(name string) bool { return name != "" && !strings.ContainsRune(name, 0) }

// exitsAccept is told for exit codes.
const exitsAccept = "0 to 255, or the name of a signal"

// exitsCodec is a list of expected ends: codes and signal names.
var exitsCodec = codec[[]Exit]{
	name: "list of exits", accepted: exitsAccept, repeated: true,
	schema: pairs{{"type", []any{"integer", "string", "array"}}, {"items", pairs{{"type", []any{"integer", "string"}}}}},
	read:   readExits,
	show: func(exits []Exit) any {
		items := make([]any, len(exits))
		for i, e := range exits {
			items[i] = e.Code
			if e.Signal != "" {
				items[i] = e.Signal
			}
		}
		return items
	},
}

func readExits(r *reader, n *node) ([]Exit, bool) {
	if n.kind == scalarNode && r.yaml {
		n = foldedExits(n)
	}
	exits, all := []Exit{}, true
	for _, item := range n.elements() {
		for _, part := range splitItems(item).elements() {
			e, ok := readExit(r, part)
			exits, all = append(exits, e), all && ok
		}
	}
	return exits, all
}

// foldedExits reads what the taskmaster's own example has under exitcodes:
// lines of "-0" without a space, which YAML folds into one text "-0 -2".
func foldedExits(n *node) *node {
	words := strings.Fields(n.text)
	if len(words) < 2 && !n.folded {
		return n
	}
	for i, word := range words {
		words[i] = strings.TrimPrefix(word, "-")
	}
	return list(n.pos, words)
}

func readExit(r *reader, n *node) (Exit, bool) {
	s, ok := r.word(n)
	if !ok {
		return Exit{}, false
	}
	code, err := strconv.Atoi(s)
	if err == nil && code >= 0 && code <= 255 {
		return Exit{Code: code}, true
	}
	if err == nil {
		r.fault(n, outOfRange(s, 0), exitsAccept)
		return Exit{}, false
	}
	name, known := signalName(s)
	if !known {
		r.faultHint(n, "neither an exit code nor a signal", exitsAccept, didYouMeanSignal(s))
	}
	return Exit{Signal: name}, known
}

// signalsAccept is told for signals.
const signalsAccept = "a name such as TERM, or 1 to 64"

// signalCodec is a signal.
var signalCodec = codec[string]{
	name: "signal", accepted: signalsAccept, schema: pairs{{"type", []any{"string", "integer"}}},
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.word(n)
		if !ok {
			return "", false
		}
		name, known := signalName(s)
		if !known {
			r.faultHint(n, "no such signal", signalsAccept, didYouMeanSignal(s))
		}
		return name, known
	},
	show: showText,
}

// signals are Linux's by number. 32 and 33 belong to C libraries and have no names; of
// the others above them half is named from each end, as by kill -l of a shell.
var signals = []string{
	"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
	"STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
	"", "", "RTMIN", "RTMIN+1", "RTMIN+2", "RTMIN+3", "RTMIN+4", "RTMIN+5", "RTMIN+6", "RTMIN+7", "RTMIN+8", "RTMIN+9",
	"RTMIN+10", "RTMIN+11", "RTMIN+12", "RTMIN+13", "RTMIN+14", "RTMIN+15", "RTMAX-14", "RTMAX-13", "RTMAX-12", "RTMAX-11",
	"RTMAX-10", "RTMAX-9", "RTMAX-8", "RTMAX-7", "RTMAX-6", "RTMAX-5", "RTMAX-4", "RTMAX-3", "RTMAX-2", "RTMAX-1", "RTMAX",
}

// signalName returns the one name of a signal given by name, with or without
// SIG and in any case, or by number.
func signalName(text string) (string, bool) {
	if number, err := strconv.Atoi(text); err == nil {
		if number < 1 || number > 64 {
			return "", false
		}
		return cmp.Or(signals[number], strconv.Itoa(number)), true
	}
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	switch name {
	case "IOT":
		name = "ABRT"
	case "POLL":
		name = "IO"
	case "CLD":
		name = "CHLD"
	}
	if number := realTime(name); number != 0 {
		name = signals[number]
	}
	return name, name != "" && slices.Contains(signals, name)
}

// realTime reads RTMIN+n and RTMAX-n, which may lead beyond the middle; it returns 0
// for all else.
func realTime(name string) int {
	const first, last = 34, 64
	text, up := strings.CutPrefix(name, "RTMIN+")
	text, down := strings.CutPrefix(text, "RTMAX-")
	n, err := strconv.ParseUint(text, 10, 8)
	switch {
	case up == down || err != nil || n > last-first:
		return 0
	case up:
		return first + int(n)
	}
	return last - int(n)
}

func didYouMeanSignal(text string) string {
	name := strings.ToUpper(strings.TrimPrefix(strings.ToUpper(text), "SIG"))
	for _, known := range signals[1:] {
		if known != "" && distance(name, known) == 1 {
			return fmt.Sprintf("did you mean %q?", known)
		}
	}
	return ""
}

// stepsAccept is told for steps of a kill sequence.
const stepsAccept = `a list of "SIGNAL WAIT", such as "INT 5s"`

// stepsCodec is a list of signals, each with the wait that follows it.
var stepsCodec = codec[[]KillStep]{
	name: "list of steps", accepted: stepsAccept, repeated: true,
	schema: pairs{{"type", []any{"string", "array"}}, {"items", pairs{{"type", []any{"string", "object"}}}}},
	read: func(r *reader, n *node) ([]KillStep, bool) {
		var steps []KillStep
		all := true
		for _, item := range n.elements() {
			step, ok := readStep(r, item)
			steps, all = append(steps, step), all && ok
		}
		return steps, all
	},
	show: func(steps []KillStep) any {
		var texts []string
		for _, s := range steps {
			texts = append(texts, s.Signal+" "+formatDuration(s.Wait))
		}
		return showList(texts)
	},
}

func readStep(r *reader, n *node) (KillStep, bool) {
	signal, wait := n.get("signal"), n.get("wait")
	if n.kind == tableNode && len(n.entries) != 2 || n.kind == listNode {
		r.fault(n, "not a signal and a wait", stepsAccept)
		return KillStep{}, false
	}
	if n.kind == scalarNode {
		s, ok := r.word(n)
		fields := strings.Fields(s)
		if len(fields) != 2 {
			if ok {
				r.fault(n, "not a signal and a wait", stepsAccept)
			}
			return KillStep{}, false
		}
		signal, wait = scalar(n.pos, fields[0]), scalar(n.pos, fields[1])
	}
	if signal == nil || wait == nil {
		r.fault(n, "not a signal and a wait", stepsAccept)
		return KillStep{}, false
	}
	name, okSignal := signalCodec.read(r, signal)
	d, okWait := durationCodec.read(r, wait)
	return KillStep{name, d}, okSignal && okWait
}

// rlimitsAccept is told for resource limits.
const rlimitsAccept = `a number, "unlimited" or "SOFT:HARD"; K, M and G count by 1024`

// rlimitCodec is a resource limit.
var rlimitCodec = codec[Rlimit]{
	name: "limit", accepted: rlimitsAccept, schema: schemaNumber("integer"),
	read: func(r *reader, n *node) (Rlimit, bool) {
		s, ok := r.word(n)
		if !ok {
			return Rlimit{}, false
		}
		soft, hard, two := strings.Cut(s, ":")
		if !two {
			hard = soft
		}
		limit, err := parseRlimit(soft, hard)
		if err != nil {
			r.fault(n, err.Error(), rlimitsAccept)
		}
		return limit, err == nil
	},
	show: func(l Rlimit) any {
		soft, hard := formatAmount(l.Soft), formatAmount(l.Hard)
		if soft != hard {
			return soft + ":" + hard
		}
		if number, err := strconv.Atoi(soft); err == nil {
			return number
		}
		return soft
	},
}

func parseRlimit(soft, hard string) (Rlimit, error) {
	s, err := parseAmount(soft)
	if err != nil {
		return Rlimit{}, err
	}
	h, err := parseAmount(hard)
	if err == nil && s > h {
		err = errors.New("the soft limit is above the hard one")
	}
	return Rlimit{s, h}, err
}

func parseAmount(s string) (uint64, error) {
	if s == "unlimited" || s == "infinity" {
		return Unlimited, nil
	}
	digits := strings.TrimRight(s, "KMGkmg")
	shift := 0
	if suffix := strings.ToUpper(s[len(digits):]); suffix != "" {
		shift = 10 * (strings.Index("KMG", suffix) + 1)
		if len(suffix) > 1 {
			return 0, errors.New("not a limit")
		}
	}
	if strings.HasPrefix(digits, "-") {
		return 0, errors.New("negative")
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, errors.New("not a limit")
	}
	if n > math.MaxInt64>>shift {
		return 0, errors.New("out of range")
	}
	return n << shift, nil
}

func formatAmount(n uint64) string {
	if n == Unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

// userCodec is a user and perhaps a group, by name or number. Whether they
// exist is looked at later.
var userCodec = codec[string]{
	name: "user", accepted: "user or user:group, by name or number", schema: pairs{{"type", []any{"string", "integer"}}},
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.word(n)
		user, group, two := strings.Cut(s, ":")
		if ok && s != "" && (user == "" || two && group == "" || strings.ContainsAny(s, " \t\n/") || strings.Contains(group, ":")) {
			r.fault(n, "not a user", "user or user:group, by name or number")
			return "", false
		}
		return s, ok
	},
	show: showText,
}

// groupCodec is the name of a group of programs.
var groupCodec = codec[string]{
	name: "name", accepted: namesAccept, schema: schemaText,
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.word(n)
		if ok && s != "" && !validName(s) {
			r.fault(n, "not a name", namesAccept)
			return "", false
		}
		return s, ok
	},
	show: showText,
}

// addressesCodec is a list of mail addresses.
var addressesCodec = func() codec[[]string] {
	c := listCodec
	c.name, c.accepted = "list of addresses", "mail addresses"
	c.read = func(r *reader, n *node) ([]string, bool) {
		return r.eachText(n, func(item *node) (string, bool) { return readAddress(r, item) })
	}
	return c
}()

// addressCodec is one mail address.
var addressCodec = codec[string]{name: "address", accepted: "a mail address", schema: schemaText, read: readAddress, show: showText}

func readAddress(r *reader, n *node) (string, bool) {
	s, ok := r.text(n)
	local, domain, _ := strings.Cut(s, "@")
	if ok && s != "" && (local == "" || domain == "" || strings.ContainsAny(s, " \t\r\n<>,;\"") || strings.Contains(domain, "@")) {
		r.fault(n, "not a mail address", "name@domain")
		return "", false
	}
	return s, ok
}

// serverCodec is host:port.
var serverCodec = codec[string]{
	name: "host:port", accepted: "host:port", schema: schemaText,
	read: func(r *reader, n *node) (string, bool) {
		s, ok := r.text(n)
		if !ok || s == "" {
			return s, ok
		}
		host, port, err := net.SplitHostPort(s)
		number, bad := strconv.Atoi(port)
		if err != nil || bad != nil || host == "" || number < 1 || number > 65535 {
			r.fault(n, "not a host and a port", "host:port, such as mail.example.com:587")
			return "", false
		}
		return s, true
	},
	show: showText,
}

// path makes a relative path start at the file's directory.
func (r *reader) path(s string) string {
	if s == "" || r.dir == "" || filepath.IsAbs(s) {
		return s
	}
	return filepath.Join(r.dir, s)
}
