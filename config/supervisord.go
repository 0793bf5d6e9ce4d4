package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// renamed are supervisor's keys of a program whose values mean the same in pm.
var renamed = map[string]string{
	"command": "cmd", "numprocs": "numprocs", "priority": "priority", "autostart": "autostart", "autorestart": "autorestart",
	"startsecs": "starttime", "startretries": "startretries", "exitcodes": "exitcodes", "stopsignal": "stopsignal",
	"stopwaitsecs": "stoptime", "user": "user", "directory": "workingdir", "umask": "umask",
	"stdout_logfile": "stdout", "stderr_logfile": "stderr", "redirect_stderr": "stderr", "environment": "env",
}

// rotation are supervisor's keys of the file of standard output, and pm's below logs.
var rotation = map[string]string{"stdout_logfile_maxbytes": "rotate", "stdout_logfile_backups": "files"}

// lost says why a key of supervisor's has no counterpart, where there is more
// to say than that.
var lost = map[string]string{
	"stopasgroup":             "without effect: pm always stops the whole process tree",
	"killasgroup":             "without effect: pm always stops the whole process tree",
	"process_name":            "dropped: pm calls the instances NAME, or NAME:0, NAME:1 and so on",
	"stderr_logfile_maxbytes": "dropped: pm rotates the files of a program alike, by logs.rotate",
	"stderr_logfile_backups":  "dropped: pm rotates the files of a program alike, by logs.files",
	"nodaemon":                "dropped: pm daemon stays in the foreground",
	"pidfile":                 "dropped: the daemon's lock is in its state directory",
	"supervisor.user":         "dropped: start pm daemon as that user",
	"chmod":                   "dropped: the socket is for its owner, and for daemon.group",
	"files":                   "the included files have to be converted too, and named in include",
}

// supervisord turns the sections of a supervisord.conf into pm's tree.
type supervisord struct {
	r        *reader
	sections []iniSection
	groups   map[string]string // of each program
	// inherited is what [supervisord] says for every program.
	inherited []entry
	env       []entry
	programs  *node
	daemon    *node
}

func fromSupervisord(r *reader, name, text string, f *File) {
	sections, problems := parseINI(name, text)
	r.problems = append(r.problems, problems...)
	at := pos{name, 1, 1}
	s := &supervisord{
		r: r, sections: sections, groups: map[string]string{},
		programs: &node{pos: at, kind: tableNode}, daemon: &node{pos: at, kind: tableNode},
	}
	s.each("group", s.group)
	s.each("supervisord", s.global)
	s.each("unix_http_server", s.server)
	s.each("program", s.program)
	for _, section := range sections {
		s.leftOut(section)
	}
	r.programs(entry{at, "programs", s.programs}, f)
	decodeTable(r, "daemon", "", daemonFields, &f.Daemon, s.daemon)
}

// each calls read with the sections of one kind and the name behind their
// colon.
func (s *supervisord) each(kind string, read func(section iniSection, name string)) {
	for _, section := range s.sections {
		if k, name, _ := strings.Cut(section.name, ":"); k == kind {
			read(section, strings.TrimSpace(name))
		}
	}
}

// leftOut warns of a section that pm has no use for.
func (s *supervisord) leftOut(section iniSection) {
	kind, _, _ := strings.Cut(section.name, ":")
	switch kind {
	case "program", "group", "supervisord", "unix_http_server":
		return
	case "include":
		s.r.warn(section.pos, section.name, lost["files"])
	case "supervisorctl", "rpcinterface", "inet_http_server":
		s.r.warn(section.pos, section.name, "section dropped: pm is controlled over its Unix socket")
	default:
		s.r.warn(section.pos, section.name, "section dropped: no counterpart in pm")
	}
}

func (s *supervisord) drop(section iniSection, line iniLine) {
	why, known := lost[line.key]
	if !known {
		why = "dropped: no counterpart in pm"
	}
	s.r.warn(line.pos, section.name+"."+line.key, why)
}

func (s *supervisord) group(section iniSection, name string) {
	for _, line := range section.lines {
		if line.key != "programs" {
			s.drop(section, line)
			continue
		}
		for program := range strings.SplitSeq(line.value, ",") {
			s.groups[strings.TrimSpace(program)] = name
		}
	}
}

// global reads [supervisord].
func (s *supervisord) global(section iniSection, _ string) {
	for _, line := range section.lines {
		value := scalar(line.pos, s.text(section, line, ""))
		switch line.key {
		case "logfile":
			s.daemon.entries = append(s.daemon.entries, entry{line.pos, "log_file", value})
		case "umask", "directory":
			s.inherited = append(s.inherited, entry{line.pos, renamed[line.key], value})
		case "environment":
			s.env = s.environment(section, line, "")
		case "user":
			s.r.warn(line.pos, section.name+".user", lost["supervisor.user"])
		default:
			s.drop(section, line)
		}
	}
}

// server reads [unix_http_server].
func (s *supervisord) server(section iniSection, _ string) {
	for _, line := range section.lines {
		if line.key != "file" {
			s.drop(section, line)
			continue
		}
		s.daemon.entries = append(s.daemon.entries, entry{line.pos, "socket", scalar(line.pos, s.text(section, line, ""))})
	}
}

// program reads one [program:NAME].
func (s *supervisord) program(section iniSection, name string) {
	p := programEntry(section.pos, name)
	table := p.value
	env := slices.Clone(s.env)
	var rotated []entry
	for _, line := range section.lines {
		switch key := renamed[line.key]; {
		case line.key == "environment":
			env = merge(env, s.environment(section, line, name))
		case strings.HasSuffix(line.key, "_logfile"):
			s.output(table, section, line, name)
		case rotation[line.key] != "":
			rotated = append(rotated, entry{line.pos, rotation[line.key], scalar(line.pos, size(line.value))})
		case line.key == "redirect_stderr":
			if boolWords[strings.ToLower(line.value)] {
				table.put(entry{line.pos, "stderr", scalar(line.pos, "stdout")})
			}
		case key == "":
			s.drop(section, line)
		default:
			table.put(entry{line.pos, key, scalar(line.pos, s.text(section, line, name))})
		}
	}
	toFile := table.grows("stdout")
	if !toFile {
		rotated = nil // it was said of that stream
	}
	if toFile || table.grows("stderr") {
		rotated = append(rotated, unsaid(rotated, section.pos)...)
		table.put(entry{rotated[0].pos, "logs", &node{pos: rotated[0].pos, kind: tableNode, entries: rotated}})
	}
	for _, e := range s.inherited {
		if table.get(e.key) == nil {
			table.put(e)
		}
	}
	if len(env) > 0 {
		table.put(entry{section.pos, "env", &node{pos: section.pos, kind: tableNode, entries: env}})
	}
	if group := s.groups[name]; group != "" {
		table.put(entry{section.pos, "group", scalar(section.pos, group)})
	}
	s.programs.entries = append(s.programs.entries, p)
}

// grows reports whether a stream of the program goes to a file, and to no device.
func (n *node) grows(stream string) bool {
	to := n.get(stream)
	return to != nil && IsFile(to.text) && !strings.HasPrefix(to.text, "/dev/")
}

// unsaid is what supervisor does about the size of a file where nothing is said of it.
func unsaid(rotated []entry, at pos) (more []entry) {
	for _, e := range []entry{{at, "rotate", scalar(at, "50M")}, {at, "files", scalar(at, "10")}} {
		if !slices.ContainsFunc(rotated, func(given entry) bool { return given.key == e.key }) {
			more = append(more, e)
		}
	}
	return more
}

// size writes a number of bytes as pm does: without the B of supervisor's KB, MB and
// GB.
func size(value string) string { return strings.TrimSuffix(strings.ToUpper(value), "B") }

// put sets an entry. A standard error that goes with standard output stays
// there, as in supervisor.
func (n *node) put(e entry) {
	if old := n.get(e.key); old != nil && old.text == "stdout" {
		return
	}
	n.entries = slices.DeleteFunc(n.entries, func(old entry) bool { return old.key == e.key })
	n.entries = append(n.entries, e)
}

// output reads a log file's key. AUTO is a file that supervisor deletes; pm
// keeps the last lines without one.
func (s *supervisord) output(table *node, section iniSection, line iniLine, name string) {
	key, value := renamed[line.key], s.text(section, line, name)
	switch strings.ToUpper(value) {
	case "AUTO", "":
		return
	case "NONE":
		value = "discard"
	case "SYSLOG":
		value = "syslog"
	}
	if key == "" {
		s.drop(section, line)
		return
	}
	table.put(entry{line.pos, key, scalar(line.pos, value)})
}

// merge adds entries, of which the later ones win.
func merge(env, more []entry) []entry {
	for _, e := range more {
		env = slices.DeleteFunc(env, func(old entry) bool { return old.key == e.key })
		env = append(env, e)
	}
	return env
}

// environment reads KEY="value",KEY='value',KEY=value.
func (s *supervisord) environment(section iniSection, line iniLine, program string) []entry {
	var env []entry
	rest := strings.TrimSpace(s.text(section, line, program))
	for rest != "" {
		name, value, ok := strings.Cut(rest, "=")
		if !ok {
			s.r.key = section.name + ".environment"
			s.r.faultAt(line.pos, `not a list of KEY="value" with commas`)
			return env
		}
		value, rest = environmentValue(strings.TrimSpace(value))
		name = strings.TrimSpace(name)
		env = merge(env, []entry{{line.pos, name, scalar(line.pos, value)}})
	}
	return env
}

// environmentValue reads a value up to its comma and returns what follows.
func environmentValue(text string) (value, rest string) {
	if text != "" && (text[0] == '"' || text[0] == '\'') {
		if end := strings.IndexByte(text[1:], text[0]); end >= 0 {
			value, rest = text[1:end+1], text[end+2:]
			return value, strings.TrimLeft(rest, ", \t\n")
		}
	}
	value, rest, _ = strings.Cut(text, ",")
	return strings.TrimSpace(value), strings.TrimSpace(rest)
}

// text is a value with supervisor's %(…)s turned into what pm has for it.
func (s *supervisord) text(section iniSection, line iniLine, program string) string {
	var b strings.Builder
	rest := escape(line.value)
	for {
		before, after, found := strings.Cut(rest, "%")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if strings.HasPrefix(after, "%") {
			b.WriteByte('%')
			rest = after[1:]
			continue
		}
		name, length := percentName(after)
		if length == 0 {
			b.WriteByte('%')
			rest = after
			continue
		}
		b.WriteString(s.percent(section, line, program, name, "%"+after[:length]))
		rest = after[length:]
	}
}

// percentName reads the (name)s or (name)02d that follows a %, and returns its
// length: 0 if it is none.
func percentName(text string) (name string, length int) {
	end := strings.IndexByte(text, ')')
	if end < 0 || text[0] != '(' {
		return "", 0
	}
	for i := end + 1; i < len(text); i++ {
		if text[i] == 's' || text[i] == 'd' {
			return text[1:end], i + 1
		}
		if text[i] < '0' || text[i] > '9' {
			break
		}
	}
	return "", 0
}

// percent is what stands for %(name)s in pm.
func (s *supervisord) percent(section iniSection, line iniLine, program, name, whole string) string {
	known := map[string]string{"program_name": program, "group_name": program, "numprocs": "1"}
	if group := s.groups[program]; group != "" {
		known["group_name"] = group
	}
	if numprocs, given := section.get("numprocs"); given {
		known["numprocs"] = numprocs.value
	}
	if variable, ok := strings.CutPrefix(name, "ENV_"); ok && isVariable(variable) {
		return "${" + variable + "}"
	}
	if value, ok := known[name]; ok {
		return value
	}
	if line.key != "process_name" {
		s.r.warn(line.pos, section.name+"."+line.key, fmt.Sprintf("%s has no counterpart in pm and stays as it is (known: %s)",
			whole, oneOf(append(slices.Sorted(maps.Keys(known)), "ENV_NAME"))))
	}
	return whole
}
