package subcmd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"pm.example/codec"
	"pm.example/config"
	"pm.example/journal"
	"pm.example/runner"
	"pm.example/socket"
)

// state is what outlives a worker: the configuration in force, the states of
// the instances and the latest events, in a journal of the state directory. It
// is written before anything is done that follows from it. Safe for concurrent
// use.
type state struct {
	log       *slog.Logger
	committed func()                // called after each commit
	recent    func() []socket.Event // the events to keep when the journal is written anew
	unsynced  chan struct{}         // something is not on the disk yet

	mu        sync.Mutex // guards all below
	journal   *journal.Journal
	boot      string
	config    []byte       // as an earlier worker has left it
	current   *savedConfig // what is in force now; nil: config is
	instances map[outputKey][]byte
	events    []socket.Event // that an earlier worker has left
	logged    uint64         // the latest event that is in the log; 0: nobody has noted that
	rebooted  bool           // since it was written
	broken    bool           // it had records that cannot be read
	closing   bool           // the end of the daemon has begun
	failed    bool           // the last write failed, and that was told
	quiet     bool           // the next commit may take its time
	room      []byte         // for one record after the other
}

// stateMagic names the format of the journal. A change of it makes a new number;
// the old one then has to be read as well.
const stateMagic = "pm state 1"

// The kinds of records. The numbers are in files.
const (
	stateBoot     = 1 // the boot id; always the first, and where a daemon has begun that could not write the journal anew
	stateConfig   = 2 // the configuration in force, as JSON
	stateInstance = 3
	stateGone     = 4 // an instance is no more
	stateEvent    = 5
	stateClosing  = 6 // the daemon is about to end
	stateLogged   = 7 // events up to this one are in the daemon's log
)

// savedConfig is what a successor needs to know of the configuration.
type savedConfig struct {
	File   *config.File
	Scaled map[string]int
}

// openState opens the state of a state directory. A warning tells of what is
// damaged, and was set aside.
func openState(dir string) (s *state, warning, err error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil, fmt.Errorf("cannot tell this boot of the machine from others: %w", err)
	}
	s = &state{boot: strings.TrimSpace(string(boot)), instances: map[outputKey][]byte{}, unsynced: make(chan struct{}, 1)}
	j, records, err := journal.Open(filepath.Join(dir, "state"), stateMagic)
	var damage *journal.Damage
	if errors.As(err, &damage) {
		warning, err, s.broken = damage, nil, true
	}
	if err != nil {
		return nil, nil, err
	}
	s.journal = j
	later := 0
	for n, record := range records {
		err := s.load(record)
		if errors.Is(err, errLaterRecord) {
			later++
			continue
		}
		if err != nil {
			s.broken = true
			return s, errors.Join(warning, fmt.Errorf("record %d of the saved state cannot be read, and is left out with what follows: %w", n+1, err)), nil
		}
	}
	if later > 0 {
		warning = errors.Join(warning, fmt.Errorf("%d records of the saved state are of a later pm, and left out", later))
	}
	return s, warning, nil
}

// errLaterRecord is what a record of an unknown kind is: a later pm has written it, and
// an upgrade went back.
var errLaterRecord = errors.New("it is of a kind that this pm does not know")

func (s *state) load(record []byte) error {
	d := codec.NewDecoder(record)
	switch kind := d.Int(); kind {
	case stateBoot:
		s.rebooted, s.closing = d.String() != s.boot, false
	case stateConfig:
		s.config = []byte(d.String())
	case stateInstance:
		key := outputKey{d.String(), d.Int()}
		s.instances[key] = []byte(d.String())
	case stateGone:
		delete(s.instances, outputKey{d.String(), d.Int()})
	case stateClosing:
		s.closing = true
	case stateLogged:
		s.logged = d.Uint()
	case stateEvent:
		s.events = append(s.events, decodeEvent(d))
		if len(s.events) > 2*keptEvents {
			s.events = append([]socket.Event(nil), s.events[keptEvents:]...)
		}
	default:
		return errLaterRecord
	}
	return d.Err()
}

// saved returns the configuration and the instances that an earlier worker has
// left; nil if it ended in order, or there was none.
func (s *state) saved() (*savedConfig, []runner.Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.config) == 0 || len(s.instances) == 0 {
		return nil, nil, nil
	}
	var c savedConfig
	if err := json.Unmarshal(s.config, &c); err != nil {
		return nil, nil, fmt.Errorf("the saved configuration cannot be read: %w", err)
	}
	var list []runner.Saved
	for key, record := range s.instances {
		list = append(list, runner.Saved{Program: key.program, Index: key.index, Record: record})
	}
	return &c, list, nil
}

// setConfig records the configuration that comes into force with the next
// commit.
func (s *state) setConfig(c savedConfig) {
	data, err := json.Marshal(c)
	if err != nil {
		s.log.Error("the configuration cannot be saved", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Scaled = maps.Clone(c.Scaled)
	s.config, s.current = nil, &c // as text it would take more memory than as it is
	s.journal.Add(textRecord(stateConfig, string(data)))
}

// setClosing records that the end of the daemon has begun: whoever goes on ends
// it.
func (s *state) setClosing() {
	s.mu.Lock()
	s.closing = true
	s.journal.Add(closingRecord())
	s.mu.Unlock()
	s.Commit()
}

// setLogged records that events up to the one of this number are in the daemon's log.
// When that fails they are logged again by the next worker.
func (s *state) setLogged(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logged = seq
	s.journal.Add(loggedRecord(seq))
	_ = s.journal.Commit()
}

func loggedRecord(seq uint64) []byte {
	var e codec.Encoder
	e.Int(stateLogged)
	e.Uint(seq)
	return e
}

func closingRecord() []byte {
	var e codec.Encoder
	e.Int(stateClosing)
	return e
}

// addEvent records an event, with the next commit.
func (s *state) addEvent(e socket.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = eventRecord(s.room[:0], e)
	s.journal.Add(s.room)
}

// eventRecord makes the record of an event in the given room, which may be nil.
func eventRecord(room []byte, e socket.Event) []byte {
	r := codec.Encoder(room)
	r.Int(stateEvent)
	r.Int(e.Schema)
	r.Uint(e.Seq)
	r.Wall(e.Time)
	for _, text := range []string{e.Type, e.Instance, e.Program, e.By, e.Message} {
		r.String(text)
	}
	r.Int(e.PID)
	r.Bool(e.Task != nil)
	if e.Task != nil {
		r.String(e.Task.ID)
		r.String(e.Task.State)
	}
	r.Bool(e.Exit != nil)
	if e.Exit != nil {
		r.Int(e.Exit.Code)
		r.String(e.Exit.Signal)
		r.Bool(e.Exit.Unknown)
		r.Wall(e.Exit.Time)
		r.Bool(e.Exit.Expected)
	}
	return r
}

// decodeEvent reads what follows the kind of an eventRecord.
func decodeEvent(d *codec.Decoder) socket.Event {
	e := socket.Event{Schema: d.Int(), Seq: d.Uint(), Time: d.Wall()}
	for _, text := range []*string{&e.Type, &e.Instance, &e.Program, &e.By, &e.Message} {
		*text = d.String()
	}
	e.PID = d.Int()
	if d.Bool() {
		e.Task = &socket.Task{ID: d.String(), State: d.String()}
	}
	if d.Bool() {
		e.Exit = &socket.Exit{Code: d.Int(), Signal: d.String(), Unknown: d.Bool(), Time: d.Wall(), Expected: d.Bool()}
	}
	return e
}

func textRecord(kind int, text string) []byte {
	e := codec.Encoder(make([]byte, 0, len(text)+8))
	e.Int(kind)
	e.String(text)
	return e
}

// Put records the state of an instance, with the next commit; nil: it is gone.
func (s *state) Put(program string, index int, record []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := outputKey{program, index}
	if record == nil {
		delete(s.instances, key)
		e := codec.Encoder{}
		e.Int(stateGone)
		e.String(program)
		e.Int(index)
		s.journal.Add(e)
		return
	}
	s.instances[key] = append(s.instances[key][:0], record...)
	s.room = instanceRecord(s.room[:0], key, record)
	s.journal.Add(s.room)
}

// instanceRecord makes the record of an instance in the given room, which may be nil.
func instanceRecord(room []byte, key outputKey, record []byte) []byte {
	e := codec.Encoder(room)
	e.Int(stateInstance)
	e.String(key.program)
	e.Int(key.index)
	e.Bytes(record)
	return e
}

// Commit writes what was recorded. When that fails, as on a full disk, the
// daemon goes on, says so once, and writes it later.
func (s *state) Commit() {
	s.mu.Lock()
	full := s.journal.Overfull() || s.quiet && s.journal.Full()
	s.quiet = false
	s.mu.Unlock()
	var recent []socket.Event
	if full {
		recent = s.recent()
	}
	s.mu.Lock()
	err := s.journal.Commit()
	if err == nil && full {
		_ = s.rewrite(recent) // if that fails the old one is good enough
	}
	if err != nil && !s.failed {
		s.log.Error("the state of the daemon cannot be written, and would be lost if it were killed now", "error", err)
	}
	s.failed = err != nil
	s.mu.Unlock()
	select {
	case s.unsynced <- struct{}{}:
	default:
	}
	s.committed()
}

// rewrite replaces the journal by what counts. The caller holds s.mu.
func (s *state) rewrite(recent []socket.Event) error {
	all := [][]byte{textRecord(stateBoot, s.boot)}
	config := s.config
	if s.current != nil {
		var err error
		if config, err = json.Marshal(s.current); err != nil {
			return err
		}
	}
	if config != nil {
		all = append(all, textRecord(stateConfig, string(config)))
	}
	if s.closing {
		all = append(all, closingRecord())
	}
	if s.logged > 0 {
		all = append(all, loggedRecord(s.logged))
	}
	for key, record := range s.instances {
		all = append(all, instanceRecord(nil, key, record))
	}
	for _, e := range recent {
		all = append(all, eventRecord(nil, e))
	}
	return s.journal.Rewrite(all)
}

// begin makes the state this boot's, and that of a daemon that is about to end or
// not. Where it is that already nothing is written, which may take long on a busy
// disk: clients wait for a worker that takes another's place.
func (s *state) begin(recent []socket.Event, closing bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal.Counts(s.counts())
	same := len(s.instances) > 0 && !s.rebooted && !s.broken && s.closing == closing && !s.journal.Full()
	s.events, s.rebooted, s.broken, s.closing = nil, false, false, closing
	if same || s.rewrite(recent) == nil {
		return
	}
	// What is there goes on, as on a full disk, and the next commit tells of that.
	s.journal.Add(textRecord(stateBoot, s.boot))
	if closing {
		s.journal.Add(closingRecord())
	}
}

// counts returns how many bytes the state would be if it were written anew, about.
// The caller holds s.mu.
func (s *state) counts() int {
	const key, event = 32, 256
	size := len(s.config) + event*min(len(s.events), keptEvents)
	for _, record := range s.instances {
		size += key + len(record)
	}
	return size
}

// syncEvery is how long a crash of the machine may reach back.
const syncEvery = 50 * time.Millisecond

// sync brings commits to the disk, a little later and many at once, until done
// is closed. When it is quiet and the journal should be written anew, which takes a
// while, it has commit do that; commit must call Commit.
func (s *state) sync(done <-chan struct{}, commit func()) {
	for {
		select {
		case <-done:
			return
		case <-s.unsynced:
		}
		select {
		case <-done:
			return
		case <-time.After(syncEvery):
		}
		s.mu.Lock()
		file := s.journal.File()
		s.mu.Unlock()
		if err := journal.Sync(file); err != nil && !errors.Is(err, fs.ErrClosed) {
			s.log.Warn("the state of the daemon does not reach the disk", "error", err)
		}
		if len(s.unsynced) == 0 && s.mayRewrite() {
			commit()
		}
	}
}

// mayRewrite lets the next commit write the journal anew, and reports whether it will.
func (s *state) mayRewrite() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quiet = s.journal.Full()
	return s.quiet
}

// trim gives back memory that only a burst of records needs.
func (s *state) trim() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal.Trim()
	s.room = nil
}

func (s *state) close() { _ = s.journal.Close() }
