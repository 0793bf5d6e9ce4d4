package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/codec"
	"pm.example/journal"
)

// The records of a keeper are what its successor needs to go on: of each task
// its tag and cgroup before it is started, then its pid and pipes, and its end.
// They are about processes of this boot of the machine, so that nothing needs to
// reach the disk.

// recordsMagic names the format of the file. A change of it makes a new number;
// the old one then has to be read as well.
const recordsMagic = "pm keeper 1"

// recordKind says what a record tells.
type recordKind int

// The kinds of records. The numbers are in files.
const (
	recordBoot      recordKind = 1 // the boot id of what follows; always the first
	recordCgroups   recordKind = 2 // where the keeper makes cgroups
	recordTask      recordKind = 3 // all of a task, in place of those that follow
	recordWanted    recordKind = 4 // a task is about to be started with this tag
	recordSpawned   recordKind = 5
	recordFailed    recordKind = 6
	recordAsked     recordKind = 7 // to end, by a step of a stop
	recordExited    recordKind = 8
	recordEmpty     recordKind = 9
	recordReleased  recordKind = 10
	recordForgotten recordKind = 11
	recordPipes     recordKind = 12 // which a task is about to be started with
)

// records is the open file.
type records struct {
	journal *journal.Journal
	boot    string
	waiting int    // records that are not written yet
	failed  bool   // the last write failed, and that was told
	room    []byte // for one record after the other
}

// known is what the records of an earlier keeper tell of a task.
type known struct{ tree }

// record notes a change of a task, if records are kept. The caller holds k.mu.
func (k *Keeper) record(kind recordKind, t *tree) {
	r := k.records
	if r == nil {
		return
	}
	e := codec.Encoder(r.room[:0])
	e.Int(int(kind))
	e.String(t.id)
	switch kind {
	case recordWanted:
		e.Uint(t.tag)
		e.String(t.cgroup)
	case recordPipes:
		encodePipes(&e, t)
	case recordSpawned:
		encodeSpawned(&e, t)
	case recordFailed:
		encodeFailure(&e, t)
	case recordAsked:
		e.Int(t.step)
	case recordExited:
		encodeEnd(&e, t)
	}
	r.journal.Add(e)
	r.room = e
	r.waiting++
	if kind == recordPipes || r.waiting > manyRecords {
		k.commit()
	}
}

// manyRecords may wait to be written while nobody takes events. Tag and pipes are
// written before the launch: they prove, after a kill, whose process it is, and
// lead to what it prints.
const manyRecords = 100

// Commit writes down what has happened so far, as Take does.
func (k *Keeper) Commit() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.commit()
}

// commit writes the records that wait: before anybody is told of what they tell.
// The caller holds k.mu.
func (k *Keeper) commit() {
	r := k.records
	if r == nil || r.waiting == 0 {
		return
	}
	r.waiting = 0
	err := r.journal.Commit()
	if err == nil && r.journal.Full() {
		k.rewrite()
		return
	}
	k.complain(err)
}

// complain tells once of a file that cannot be written. The programs run on; a
// successor would miss what was not written.
func (k *Keeper) complain(err error) {
	if err != nil && !k.records.failed {
		k.log.Error("the records of running programs cannot be written, and would be lost if pm were killed now", "error", err)
	}
	k.records.failed = err != nil
}

// rewrite replaces the records by the present state. The caller holds k.mu.
func (k *Keeper) rewrite() {
	boot := encode(recordBoot, k.records.boot) // twice, since all that follows hangs on it
	all := [][]byte{boot, boot, encode(recordCgroups, k.cgroups.whole)}
	for _, t := range k.tasks {
		if t.tag != 0 || t.pid != 0 || t.failure != nil {
			all = append(all, encodeTask(t))
		}
		if t.tag != 0 && t.pid == 0 && t.failure == nil { // it is just being started
			var e codec.Encoder
			e.Int(int(recordPipes))
			e.String(t.id)
			encodePipes(&e, t)
			all = append(all, e)
		}
	}
	err := k.records.journal.Rewrite(all)
	if err != nil { // the old ones go on, as on a full disk
		err = k.records.journal.Commit()
	}
	k.complain(err)
}

func encode(kind recordKind, text string) []byte {
	var e codec.Encoder
	e.Int(int(kind))
	e.String(text)
	return e
}

func encodeTask(t *tree) []byte {
	var e codec.Encoder
	e.Int(int(recordTask))
	e.String(t.id)
	e.Uint(t.tag)
	e.String(t.cgroup)
	e.Int(t.pid)
	if t.pid != 0 {
		encodeSpawned(&e, t)
	}
	e.Bool(t.failure != nil)
	if t.failure != nil {
		encodeFailure(&e, t)
	}
	e.Int(t.step)
	e.Bool(t.dead)
	if t.dead {
		encodeEnd(&e, t)
	}
	e.Bool(t.told)
	e.Bool(t.released)
	return e
}

func encodeSpawned(e *codec.Encoder, t *tree) {
	e.Int(t.pid)
	e.Time(t.started)
	encodePipes(e, t)
}

func encodePipes(e *codec.Encoder, t *tree) {
	for _, ino := range t.inodes {
		e.Uint(ino)
	}
}

func encodeFailure(e *codec.Encoder, t *tree) {
	e.Time(t.end.at)
	EncodeSpawnError(e, t.failure)
}

// EncodeSpawnError appends what stands in the error; its kind is lost, but for
// whether the program is missing.
func EncodeSpawnError(e *codec.Encoder, f *SpawnError) {
	e.String(f.Doing)
	e.String(f.Err.Error())
	e.Bool(f.Passing)
	e.Bool(f.Missing())
}

// DecodeSpawnError takes what EncodeSpawnError has appended.
func DecodeSpawnError(d *codec.Decoder) *SpawnError {
	f := &SpawnError{Doing: d.String(), Err: errors.New(d.String()), Passing: d.Bool()}
	if d.Bool() {
		f.Err = missingError{f.Err}
	}
	return f
}

// missingError is an error of another process that was errNoCommand.
type missingError struct{ error }

func (missingError) Is(target error) bool { return target == errNoCommand }

func encodeEnd(e *codec.Encoder, t *tree) {
	e.Time(t.end.at)
	EncodeStatus(e, t.end.status)
	e.Int(t.left)
}

// EncodeStatus appends an end.
func EncodeStatus(e *codec.Encoder, s Status) {
	e.Int(s.Code)
	e.Int(int(s.Signal))
	e.Bool(s.Core)
	e.Bool(s.Unknown)
}

// DecodeStatus takes what EncodeStatus has appended.
func DecodeStatus(d *codec.Decoder) Status {
	return Status{Code: d.Int(), Signal: syscall.Signal(d.Int()), Core: d.Bool(), Unknown: d.Bool()}
}

// inode returns the number that all descriptors of a pipe share.
func inode(fd int) uint64 {
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// openRecords takes over what the file at path tells, and keeps records there
// from now on.
func (k *Keeper) openRecords(path string) (warning, err error) {
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	j, old, err := journal.Open(path, recordsMagic)
	var damage *journal.Damage
	if errors.As(err, &damage) {
		warning, err = damage, nil
	}
	if err != nil {
		return nil, err
	}
	tasks, unreadable := decodeRecords(old, boot)
	warning = errors.Join(warning, unreadable)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = &records{journal: j, boot: boot}
	j.Add(encode(recordBoot, boot)) // should those of another boot stay before it
	k.takeOver(tasks)
	k.rewrite()
	return warning, nil
}

// Resumed reports whether Resume was called.
func (k *Keeper) Resumed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.records != nil
}

// bootID tells one run of the machine from all others.
func bootID() (string, error) {
	id, err := slurp("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell this boot of the machine from others: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

func (r *records) close() { _ = r.journal.Close() }

// decodeRecords returns the tasks that the records leave. Those of another boot
// tell of processes that are gone.
func decodeRecords(list [][]byte, boot string) (map[string]*known, error) {
	tasks := map[string]*known{}
	ours := false
	for n, record := range list {
		d := codec.NewDecoder(record)
		kind, id := recordKind(d.Int()), d.String()
		switch {
		case kind == recordBoot:
			if ours = id == boot; !ours {
				clear(tasks)
			}
		case ours:
			apply(tasks, kind, id, d)
		}
		if d.Err() != nil {
			return tasks, fmt.Errorf("record %d of the programs that ran is unreadable, and left out with what follows: %w", n+1, d.Err())
		}
	}
	return tasks, nil
}

// apply changes the tasks as one record says.
func apply(tasks map[string]*known, kind recordKind, id string, d *codec.Decoder) {
	t := tasks[id]
	if kind == recordWanted || kind == recordTask {
		t = &known{tree: *newTree(id)}
		tasks[id] = t
	}
	if t == nil { // of the keeper, or of a task whose beginning was lost
		for d.More() {
			d.Uint()
		}
		return
	}
	switch kind {
	case recordTask:
		t.decode(d)
	case recordWanted:
		t.tag, t.cgroup = d.Uint(), d.String()
	case recordPipes:
		t.decodePipes(d)
	case recordSpawned:
		t.decodeSpawned(d)
	case recordFailed:
		t.decodeFailure(d)
	case recordAsked:
		t.step = d.Int()
	case recordExited:
		t.decodeEnd(d)
	case recordEmpty:
		t.told = true
	case recordReleased:
		t.released = true
	case recordForgotten:
		delete(tasks, id)
	}
}

func (t *known) decode(d *codec.Decoder) {
	t.tag, t.cgroup = d.Uint(), d.String()
	if d.Int() != 0 {
		t.decodeSpawned(d)
	}
	if d.Bool() {
		t.decodeFailure(d)
	}
	t.step = d.Int()
	if d.Bool() {
		t.decodeEnd(d)
	}
	t.told, t.released = d.Bool(), d.Bool()
}

func (t *known) decodeSpawned(d *codec.Decoder) {
	t.pid, t.started = d.Int(), d.Time()
	t.decodePipes(d)
}

func (t *known) decodePipes(d *codec.Decoder) { t.inodes = [2]uint64{d.Uint(), d.Uint()} }

func (t *known) decodeFailure(d *codec.Decoder) {
	t.end.at = d.Time()
	t.failure = DecodeSpawnError(d)
}

func (t *known) decodeEnd(d *codec.Decoder) {
	t.dead = true
	t.end = death{at: d.Time()}
	t.end.status = DecodeStatus(d)
	t.left = d.Int()
}

// unseen is the end of a process that nobody saw.
func unseen() death { return death{status: Status{Code: -1, Unknown: true}, at: time.Now()} }

// openFiles lists the descriptors of a process that are pipes, by inode.
func openFiles(pid int) map[uint64]string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	out := map[uint64]string{}
	for _, e := range entries {
		path := dir + "/" + e.Name()
		target, err := os.Readlink(path)
		if err != nil {
			continue
		}
		var ino uint64
		if _, err := fmt.Sscanf(target, "pipe:[%d]", &ino); err == nil {
			out[ino] = path
		}
	}
	return out
}
