package subcmd

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pm.example/config"
	"pm.example/output"
	"pm.example/proc"
	"pm.example/systemd"
)

// outlet is where pm sends what programs print, and how.
type outlet struct {
	*output.Outlet
	how string // the options in words, to see a change
}

// whereOf returns where a stream of a program goes, and which one that is there:
// stderr may go where stdout does.
func whereOf(p *config.Program, stream output.Stream) (string, output.Stream) {
	if stream == output.Stderr && p.Stderr != "stdout" {
		return p.Stderr, stream
	}
	return p.Stdout, output.Stdout
}

// outletName returns what an outlet is called; empty if output does not go to one.
func outletName(p *config.Program, where string, stream output.Stream) string {
	word, path := config.OutputTarget(where)
	switch {
	case !p.ThroughPM(where):
		return ""
	case word == "inherit":
		return "/dev/" + stream.String()
	case word == "syslog" && path == "":
		return word + ":" + output.SyslogSocket
	case word == "journald" && path == "":
		return word + ":" + systemd.JournalSocket
	case word != "":
		return where
	}
	path = filepath.Clean(inDir(p.WorkingDir, where))
	if own := proc.OwnOutput(path); own != nil {
		return own.Name()
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return path
	}
	return ""
}

// newTarget makes the target of an outlet.
func newTarget(name string, o output.FileOptions) output.Target {
	word, path := config.OutputTarget(name)
	switch {
	case word == "syslog":
		return output.NewSyslog(path, o)
	case word == "journald":
		return newJournalTarget(path)
	case name == "/dev/stdout":
		return output.NewInherited(1, o)
	case name == "/dev/stderr":
		return output.NewInherited(2, o)
	}
	return output.NewStream(name, o)
}

// outlet returns the outlet of a stream of an instance, and the name of that; nil if it
// goes elsewhere.
func (o *outputs) outlet(program string, index int, stream output.Stream) (*output.Outlet, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.programs[program]
	if p == nil {
		return nil, ""
	}
	where, to := whereOf(p, stream)
	name := outletName(p, where, to)
	if name == "" {
		return nil, ""
	}
	key := outletKey(p, name)
	if o.outlets[key] == nil {
		options, how := outletOptions(p)
		o.outlets[key] = &outlet{output.NewOutlet(name, o.transit(key), newTarget(name, fileOptions(p)), options, o.told(name)), how}
	}
	return o.outlets[key].Outlet, config.InstanceName(p, index)
}

// outletKey tells the outlets of programs apart: many print to one place, each in a form
// of its own.
func outletKey(p *config.Program, name string) string { return p.Name + " " + name }

func outletOptions(p *config.Program) (o output.OutletOptions, how string) {
	l := &p.Logs
	return output.OutletOptions{Drop: l.OnFull == "drop"}, fmt.Sprintf("%q %q %q %q", l.Timestamps, l.Prefix, l.Format, l.OnFull)
}

// outletNames lists the outlets of a program, each once.
func outletNames(p *config.Program) (names []string) {
	for _, stream := range []output.Stream{output.Stdout, output.Stderr} {
		where, to := whereOf(p, stream)
		name := outletName(p, where, to)
		if name != "" && (len(names) == 0 || names[0] != name) {
			names = append(names, name)
		}
	}
	return names
}

// configureOutlets takes over how a program's lines are to be sent now. The caller
// holds o.mu.
func (o *outputs) configureOutlets(p *config.Program, wanted map[string]bool) {
	for _, name := range outletNames(p) {
		key := outletKey(p, name)
		wanted[key] = true
		options, how := outletOptions(p)
		if out := o.outlets[key]; out != nil && out.how != how {
			out.Set(newTarget(name, fileOptions(p)), options)
			out.how = how
		}
	}
}

// dropOutlets closes the outlets that nobody wants. The caller holds o.mu.
func (o *outputs) dropOutlets(wanted map[string]bool) {
	for key, out := range o.outlets {
		if !wanted[key] && o.loop.IdleOutlet(out.Outlet) {
			out.Close()
			delete(o.outlets, key)
		}
	}
}

// outletsOf lists the outlets that a program prints to.
func (o *outputs) outletsOf(p *config.Program) (list []*output.Outlet) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, name := range outletNames(p) {
		if out := o.outlets[outletKey(p, name)]; out != nil {
			list = append(list, out.Outlet)
		}
	}
	return list
}

// conditions tells how the files and outlets of a program are.
func (o *outputs) conditions(p *config.Program) (list []output.Condition) {
	for _, f := range o.written(p) {
		list = append(list, f.Condition())
	}
	for _, out := range o.outletsOf(p) {
		list = append(list, out.Condition())
	}
	return list
}

// finishTime is how long pm exec tries at its end to get rid of what was printed.
const finishTime = 10 * time.Second

// finish waits until what a program has printed is where it belongs, as far as that is
// possible.
func (o *outputs) finish(p *config.Program) {
	o.drain(p)
	end := time.Now().Add(finishTime)
	for _, out := range o.outletsOf(p) {
		<-o.loop.DrainOutlet(out)
		for out.Busy() && time.Now().Before(end) {
			time.Sleep(time.Millisecond)
			<-o.loop.DrainOutlet(out)
		}
	}
}
