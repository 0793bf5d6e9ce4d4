package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Change is what a reload does to an instance, and also what a change of one
// key requires.
type Change string

// The changes, the mildest first.
const (
	Keep    Change = "keep"    // nothing: the process goes on
	Live    Change = "live"    // the process goes on under the new rules
	Scale   Change = "scale"   // the instance is added or removed by a change of numprocs
	Reopen  Change = "reopen"  // the process goes on, a log goes to another file
	Respawn Change = "respawn" // the process is stopped and started anew
	Start   Change = "start"   // the program is new
	Stop    Change = "stop"    // the program is gone
	Restart Change = "restart" // of the daemon: of keys outside of programs only
)

// Action is what a reload does to one instance.
type Action struct {
	Instance string // its name in the new configuration, or in the old if it goes
	Program  string
	Index    int
	// Was is the instance's name so far, if that changes: web becomes web:0
	// when numprocs grows from 1, and stays the same process.
	Was     string
	Kind    Change
	Reasons []string // for example: umask: "022" -> "077"
}

// Diff compares two configurations: one action for each instance of either, in
// the order of their start, those that go first. An instance is the same in
// both if its program and its index are.
func Diff(old, updated *File) []Action {
	var actions []Action
	before, after := byName(old), byName(updated)
	for _, p := range old.Programs {
		if after[p.Name] == nil {
			actions = append(actions, each(p, 0, p.NumProcs, Stop, "program removed")...)
		}
	}
	for _, p := range updated.Programs {
		if before[p.Name] == nil {
			actions = append(actions, each(p, 0, p.NumProcs, Start, "program added")...)
			continue
		}
		actions = append(actions, compare(before[p.Name], p)...)
	}
	return actions
}

func byName(f *File) map[string]*Program {
	programs := make(map[string]*Program, len(f.Programs))
	for _, p := range f.Programs {
		programs[p.Name] = p
	}
	return programs
}

// each makes the same action for the instances from first up to end.
func each(p *Program, first, end int, kind Change, reasons ...string) []Action {
	var actions []Action
	for i := first; i < end; i++ {
		actions = append(actions, Action{Instance: instanceName(p, i), Program: p.Name, Index: i, Kind: kind, Reasons: reasons})
	}
	return actions
}

// compare makes the actions for a program that both configurations have.
func compare(old, updated *Program) []Action {
	kind, reasons := differences(programFields, old, updated)
	if rerouted(old, updated) {
		kind = Respawn
	}
	scaled := fmt.Sprintf("numprocs: %d -> %d", old.NumProcs, updated.NumProcs)
	stay := min(old.NumProcs, updated.NumProcs)
	actions := each(updated, 0, stay, kind, reasons...)
	for i := range actions {
		if was := instanceName(old, i); was != actions[i].Instance {
			actions[i].Was = was
			actions[i].Reasons = append(slices.Clone(reasons), fmt.Sprintf("renamed from %s by %s", was, scaled))
		}
	}
	actions = append(actions, each(updated, stay, updated.NumProcs, Scale, scaled)...)
	return append(actions, each(old, stay, old.NumProcs, Scale, scaled)...)
}

// Same reports whether two descriptions of a program are alike in every key.
func Same(a, b *Program) bool {
	return a == b || !slices.ContainsFunc(programFields, func(f field[Program]) bool { return !same(f.get(a), f.get(b)) })
}

// severity orders what a change of a key can require of a process that stays.
var severity = map[Change]int{Keep: 0, Live: 1, Reopen: 2, Respawn: 3}

// differences compares two values key by key and returns the hardest of what
// the changes require, with the changes as reasons. A change that only scales
// requires nothing of those that stay.
func differences[T any](fields []field[T], old, updated *T) (Change, []string) {
	kind := Keep
	var reasons []string
	for _, f := range fields {
		before, after := f.get(old), f.get(updated)
		if f.requires == Scale || same(before, after) {
			continue
		}
		if severity[f.requires] > severity[kind] {
			kind = f.requires
		}
		reasons = append(reasons, f.reasons(before, after)...)
	}
	return kind, reasons
}

// same compares shown values.
func same(a, b any) bool { return reflect.DeepEqual(a, b) }

// reasons tells how a value changed. Of tables only the names of what changed
// are told if values may be secret.
func (f field[T]) reasons(before, after any) []string {
	if f.table {
		return f.tableReasons(before, after)
	}
	if looksSecret(before) || looksSecret(after) {
		return []string{f.key + ": changed"}
	}
	return []string{fmt.Sprintf("%s: %s -> %s", f.key, told(before), told(after))}
}

func (f field[T]) tableReasons(before, after any) []string {
	was, is := asMap(before), asMap(after)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		old, had := was[name]
		updated, has := is[name]
		switch {
		case had && has && old == updated:
		case !had:
			reasons = append(reasons, fmt.Sprintf("%s: %s added", f.key, name))
		case !has:
			reasons = append(reasons, fmt.Sprintf("%s: %s removed", f.key, name))
		case f.secret || looksSecret(name):
			reasons = append(reasons, fmt.Sprintf("%s: %s changed", f.key, name))
		default:
			reasons = append(reasons, fmt.Sprintf("%s.%s: %s -> %s", f.key, name, told(old), told(updated)))
		}
	}
	return reasons
}

func asMap(value any) map[string]any {
	m := map[string]any{}
	table, _ := value.(pairs)
	for _, one := range table {
		m[one.key] = one.value
	}
	return m
}

// looksSecret reports whether a text seems to hold a secret.
func looksSecret(value any) bool {
	text, _ := value.(string)
	text = strings.ToLower(text)
	return slices.ContainsFunc([]string{"passw", "secret", "token", "apikey", "api-key", "api_key", "credential"},
		func(word string) bool { return strings.Contains(text, word) })
}

// told is a value as reasons quote it.
func told(value any) string {
	if value == nil {
		return "unset"
	}
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(text)
}

// DaemonChange is a change of a key outside of programs.
type DaemonChange struct {
	Key      string
	Requires Change // live, reopen, or a restart of the daemon
	Reason   string
}

// DiffDaemon compares what two configurations say of the daemon and of mail.
func DiffDaemon(old, updated *File) []DaemonChange {
	return append(changedKeys("daemon", daemonFields, &old.Daemon, &updated.Daemon),
		changedKeys("email", emailFields, &old.Email, &updated.Email)...)
}

func changedKeys[T any](section string, fields []field[T], old, updated *T) []DaemonChange {
	var changes []DaemonChange
	for _, f := range fields {
		before, after := f.get(old), f.get(updated)
		if same(before, after) {
			continue
		}
		for _, reason := range f.reasons(before, after) {
			changes = append(changes, DaemonChange{section + "." + f.key, f.requires, section + "." + reason})
		}
	}
	return changes
}
