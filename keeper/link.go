package keeper

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pm.example/codec"
	"pm.example/proc"
)

// Link is the worker's end of the connection: the host of its runner. Its
// methods return at once, but for Signal, and may be called from any goroutine;
// what they ask for is sent in the order of the calls.
type Link struct {
	wire    *wire
	ready   chan struct{}
	outgo   chan struct{} // there is something to send
	gone    chan struct{} // closed when the keeper is no more
	signals chan syscall.Signal
	hello   Hello
	done    sync.WaitGroup

	mu        sync.Mutex // guards all below
	outbox    []maker
	events    []proc.Event
	questions map[int]chan syscall.Errno
	asked     int
	refused   error
	fault     error // of the connection
	warnings  []string
	leaders   map[string]int // pidfds of the main processes that live, by task
	ended     []int          // those of main processes that do not, to be closed
	crowded   bool           // there were many descriptors: none is kept that is of no use
}

// maker appends a frame to others that are to be sent, and returns with them the
// descriptor that goes with the last, or -1. It may append none.
type maker func(frames []byte) ([]byte, int)

// Hello is what a keeper tells a worker first.
type Hello struct {
	// StateDir is the directory that an earlier worker has named; empty: there was
	// none, and the worker is to begin from the configuration.
	StateDir string
	// Previous is how the worker before this one has ended; empty: there was none.
	Previous string
	// Orphaned says that the keeper is not the one that has started the programs.
	Orphaned bool
	// Upgraded says that the keeper has just become another program, as it was
	// asked to; Refused, why it has not.
	Upgraded bool
	Refused  string
	// Held are the files that it left, by name. They belong to the receiver.
	Held map[string]*os.File
}

// Attach takes over the file of a connection to the keeper, and waits for its
// hello. The error is [ErrGone] if the keeper has died.
func Attach(file *os.File) (*Link, error) {
	w, err := newWire(file)
	if err != nil {
		return nil, err
	}
	l := &Link{
		wire:  w,
		ready: make(chan struct{}, 1), outgo: make(chan struct{}, 1), gone: make(chan struct{}),
		signals: make(chan syscall.Signal, 64), questions: map[int]chan syscall.Errno{},
		leaders: map[string]int{},
	}
	k, d, err := w.receive()
	if err != nil {
		w.close()
		if errors.Is(err, errTooManyFiles) {
			return nil, err
		}
		return nil, fmt.Errorf("%w: %v", ErrGone, err)
	}
	if k != kindHello {
		w.close()
		return nil, fmt.Errorf("the keeper does not say hello, but something of kind %d", k)
	}
	if v := d.Int(); v != wireVersion {
		w.close()
		return nil, fmt.Errorf("the keeper speaks version %d, and this pm version %d: end the daemon with pm shutdown --keep-programs, and start it with this pm", v, wireVersion)
	}
	l.hello = Hello{
		StateDir: d.String(), Previous: d.String(), Orphaned: d.Bool(), Upgraded: d.Bool(), Refused: d.String(),
		Held: map[string]*os.File{},
	}
	for _, name := range d.Strings() {
		if fd := w.descriptor(); fd >= 0 {
			l.hello.Held[name] = os.NewFile(uintptr(fd), name)
		}
	}
	go l.receive()    // ends with the connection
	l.done.Go(l.send) // ends with the connection
	return l, nil
}

// Hello returns what the keeper told first.
func (l *Link) Hello() Hello { return l.hello }

// Gone returns a channel that is closed when the keeper has died, or cannot be
// heard any more.
func (l *Link) Gone() <-chan struct{} { return l.gone }

// Fault returns why the keeper cannot be heard although it may live, when it is
// Gone; nil: it has died.
func (l *Link) Fault() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fault
}

// Signals returns the signals that came to the keeper.
func (l *Link) Signals() <-chan syscall.Signal { return l.signals }

// Close ends the connection, after all that was asked for has been sent.
func (l *Link) Close() {
	l.post(nil)
	l.done.Wait()
	l.wire.close()
	l.letGo()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, fd := range l.leaders {
		_ = unix.Close(fd)
		delete(l.leaders, id)
	}
}

// Open asks to be told of all tasks: those that the keeper has, or if it is new,
// those in the file of records. It returns when all of them wait in Take. The
// error is [ErrGone] if the keeper has died.
func (l *Link) Open(stateDir, records string) (warnings []string, err error) {
	l.say(kindOpen, func(e *codec.Encoder) {
		e.String(stateDir)
		e.String(records)
	})
	for {
		select {
		case <-l.ready:
		case <-l.gone:
			return nil, ErrGone
		}
		l.mu.Lock()
		// More may have come behind it.
		replayed := slices.ContainsFunc(l.events, func(e proc.Event) bool { return e.Kind == proc.Replayed })
		warnings, err = l.warnings, l.refused
		l.mu.Unlock()
		if replayed || err != nil {
			wake(l.ready)
			return warnings, err
		}
	}
}

// ErrGone is what comes of asking a keeper that has died.
var ErrGone = errors.New("the keeper of the programs is gone")

// post queues something to be sent. A nil maker ends the sender.
func (l *Link) post(m maker) {
	l.mu.Lock()
	l.outbox = append(l.outbox, m)
	l.mu.Unlock()
	wake(l.outgo)
}

// say queues a frame, which is made when it is sent.
func (l *Link) say(k kind, fill func(*codec.Encoder)) {
	l.post(func(frames []byte) ([]byte, int) { return appendFrame(frames, k, fill), -1 })
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// send sends what is queued, as much as possible at once.
func (l *Link) send() {
	var frames []byte // room, used again and again
	for {
		select {
		case <-l.outgo:
		case <-l.gone:
			return
		}
		l.mu.Lock()
		makers := l.outbox
		l.outbox = nil
		l.mu.Unlock()
		var over bool
		if frames, over = l.sendAll(frames, makers); over {
			return
		}
	}
}

// enough is how many bytes of frames are sent at once.
const enough = 64 << 10

// sendAll sends the frames of the makers, and reports whether it is over. It
// returns the room for frames, empty.
func (l *Link) sendAll(frames []byte, makers []maker) (room []byte, over bool) {
	for _, m := range makers {
		if m == nil {
			over = true
			break
		}
		fd := -1
		begin := len(frames)
		frames, fd = m(frames)
		if fd >= 0 { // descriptors go with the first byte
			l.flush(frames[:begin])
			_ = l.wire.send(frames[begin:], fd)
			_ = unix.Close(fd)
			frames = frames[:0]
		}
		if len(frames) > enough {
			l.flush(frames)
			frames = frames[:0]
		}
	}
	l.flush(frames)
	return frames[:0], over
}

func (l *Link) flush(frames []byte) {
	if len(frames) > 0 {
		_ = l.wire.send(frames) // an error is told by receive as well
	}
}

// receive takes what the keeper says until it is gone.
func (l *Link) receive() {
	defer close(l.gone)
	news := false
	for {
		k, d, err := l.wire.receive()
		if err != nil {
			l.broken(err)
			return
		}
		switch k {
		case kindEvent:
			l.add(l.wire.decodeEvent(d))
			news = true
		case kindAsked:
			select {
			case l.signals <- syscall.Signal(d.Int()):
			default: // dozens wait already
			}
		case kindSignaled:
			l.answer(d.Int(), syscall.Errno(d.Int()))
		case kindRefused:
			l.mu.Lock()
			l.refused = errors.New(d.String())
			l.mu.Unlock()
			wake(l.ready)
		case kindWarning:
			l.mu.Lock()
			l.warnings = append(l.warnings, d.String())
			l.mu.Unlock()
		}
		if news && !l.wire.more() { // events that came together are taken together
			wake(l.ready)
			news = false
		}
	}
}

// broken notes why nothing more is heard of the keeper.
func (l *Link) broken(err error) {
	if !errors.Is(err, errTooManyFiles) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = err
}

func (l *Link) event(e proc.Event) {
	l.add(e)
	wake(l.ready)
}

func (l *Link) add(e proc.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
	if proc.IsSpare(max(e.Stdout, e.Stderr)) {
		l.shed()
	}
	l.attend(e)
}

// shedAtOnce is how many descriptors a message can bring, and so how many have to be
// free for the next one.
const shedAtOnce = maxRights

// shed lets go of some main processes, since the output of programs is worth more
// than a second source of how they end. The caller holds l.mu.
func (l *Link) shed() {
	closeAll(l.ended)
	l.ended = nil
	n := 0
	for id, fd := range l.leaders {
		_ = unix.Close(fd)
		delete(l.leaders, id)
		if n++; n == shedAtOnce {
			return
		}
	}
}

// attend keeps hold of the main process of a task as long as that lives: should
// the keeper be killed, whoever takes its place asks the kernel by it how the
// process has ended, also if that was at once. The caller holds l.mu.
func (l *Link) attend(e proc.Event) {
	fd, known := l.leaders[e.ID]
	switch {
	case e.Kind == proc.Spawned && !known:
		fd, err := unix.PidfdOpen(e.PID, 0)
		switch {
		case err != nil: // it has ended, and that is told
		case proc.IsSpare(fd): // control is worth more
			_ = unix.Close(fd)
		default:
			l.leaders[e.ID] = fd
			l.crowded = l.crowded || proc.IsMany(fd)
		}
	case e.Kind == proc.Exited && known:
		delete(l.leaders, e.ID)
		if l.crowded {
			_ = unix.Close(fd)
			return
		}
		if len(l.ended) == 0 {
			time.AfterFunc(letGoAfter, l.letGo) // ends by itself
		}
		l.ended = append(l.ended, fd)
	}
}

// letGoAfter is how long the pidfds of processes that have ended are kept: to close
// them takes a tenth of what a worker does while a thousand programs stop, and is of
// no use to anybody then.
const letGoAfter = 200 * time.Millisecond

// letGo closes the pidfds of processes that have ended.
func (l *Link) letGo() {
	l.mu.Lock()
	ended := l.ended
	l.ended = nil
	l.mu.Unlock()
	closeAll(ended)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// Leaders returns a file for [proc.Keeper.Inherit] that lists descriptors of the
// main processes of tasks, which survive an execve(2) of this process.
func (l *Link) Leaders() (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return proc.Bequeath(l.leaders)
}

func (l *Link) answer(question int, errno syscall.Errno) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if reply := l.questions[question]; reply != nil {
		reply <- errno
		delete(l.questions, question)
	}
}

// Ready returns a channel that holds a token when events wait.
func (l *Link) Ready() <-chan struct{} { return l.ready }

// Take returns the events since the last call, oldest first.
func (l *Link) Take() []proc.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := l.events
	l.events = nil
	return events
}

// Spawn is [proc.Keeper.Spawn]; prepare is called here, and its error makes the
// task Failed.
func (l *Link) Spawn(id string, rank int, prepare func() (*proc.Command, error)) {
	l.post(func(frames []byte) ([]byte, int) {
		command, err := prepare()
		if err != nil {
			var fail *proc.SpawnError
			if !errors.As(err, &fail) {
				fail = &proc.SpawnError{Doing: "cannot prepare the launch", Err: err}
			}
			l.event(proc.Event{ID: id, Kind: proc.Failed, At: time.Now(), Err: fail, Stdout: -1, Stderr: -1})
			return frames, -1
		}
		return appendFrame(frames, kindSpawn, func(e *codec.Encoder) {
			e.String(id)
			e.Int(rank)
			encodeCommand(e, command)
		}), -1
	})
}

// Plan is [proc.Keeper.Plan] with a command that prepare makes, unless that is nil.
// If it fails there is no successor.
func (l *Link) Plan(id string, next proc.Successor, prepare func() (*proc.Command, error)) {
	l.post(func(frames []byte) ([]byte, int) {
		if prepare != nil {
			var err error
			if next.Command, err = prepare(); err != nil {
				return frames, -1
			}
		}
		return appendFrame(frames, kindPlan, func(e *codec.Encoder) {
			e.String(id)
			encodeSuccessor(e, next)
		}), -1
	})
}

// Unplan is [proc.Keeper.Unplan].
func (l *Link) Unplan(id string) { l.about(kindUnplan, id) }

// answerPatience is how long Signal waits for the keeper, which answers at once
// unless the machine stands still.
const answerPatience = 2 * time.Second

// Signal is [proc.Keeper.Signal]. It waits for the keeper's answer.
func (l *Link) Signal(id string, sig syscall.Signal) error {
	reply := make(chan syscall.Errno, 1)
	l.mu.Lock()
	l.asked++
	question := l.asked
	l.questions[question] = reply
	l.mu.Unlock()
	l.say(kindSignal, func(e *codec.Encoder) {
		e.Int(question)
		e.String(id)
		e.Int(int(sig))
	})
	select {
	case errno := <-reply:
		if errno != 0 {
			return errno
		}
		return nil
	case <-l.gone:
		return ErrGone
	case <-time.After(answerPatience):
		return errors.New("the keeper of the programs does not answer")
	}
}

// Terminate is [proc.Keeper.Terminate].
func (l *Link) Terminate(id string, step int, sig syscall.Signal, exclude []string) {
	l.say(kindTerminate, func(e *codec.Encoder) {
		e.String(id)
		e.Int(step)
		e.Int(int(sig))
		e.Strings(exclude)
	})
}

// Kill is [proc.Keeper.Kill].
func (l *Link) Kill(id string) { l.about(kindKill, id) }

// Release is [proc.Keeper.Release].
func (l *Link) Release(id string) { l.about(kindRelease, id) }

func (l *Link) about(k kind, id string) {
	l.say(k, func(e *codec.Encoder) { e.String(id) })
}

// Drained is [proc.Keeper.Drained].
func (l *Link) Drained(id string, stream int) {
	l.say(kindDrained, func(e *codec.Encoder) {
		e.String(id)
		e.Int(stream)
	})
}

// Hold gives the keeper a descriptor of the file, for the next worker.
func (l *Link) Hold(name string, file syscall.Conn) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	other := -1
	var failed error
	err = raw.Control(func(fd uintptr) { other, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) })
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("cannot hand over %s: %w", name, err)
	}
	l.post(func(frames []byte) ([]byte, int) {
		return appendFrame(frames, kindHold, func(e *codec.Encoder) { e.String(name) }), other
	})
	return nil
}

// Serving tells the keeper that clients are served now.
func (l *Link) Serving() { l.say(kindServing, nil) }

// End tells the keeper that this worker ends for good, so that it shall end too,
// with the given exit code. With keep it leaves the programs running.
func (l *Link) End(code int, keep bool) {
	l.say(kindEnd, func(e *codec.Encoder) {
		e.Int(code)
		e.Bool(keep)
	})
}

// Upgrade asks the keeper to become the program at path, with a new worker. The
// keeper kills this one when it has heard; if the keeper is [Link.Gone] first, it
// has perhaps not.
func (l *Link) Upgrade(path string) { l.about(kindUpgrade, path) }
