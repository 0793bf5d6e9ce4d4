package keeper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"pm.example/codec"
	"pm.example/proc"
)

// wireVersion stands in front of the hello. A change of the frames makes a new
// number: halves that would take each other's frames for something else part at once.
const wireVersion = 1

// A frame is its length in four bytes, its kind and what belongs to it.
type kind int

const (
	// What a worker says.
	kindOpen      kind = iota + 1 // it is ready to hear of all tasks; names the state directory and the records
	kindSpawn                     // id, rank, command
	kindSignal                    // number of the question, id, signal
	kindTerminate                 // id, step, signal, excluded names
	kindKill                      // id
	kindRelease                   // id
	kindDrained                   // id, stream
	kindHold                      // name; with a descriptor
	kindServing                   // it serves clients
	kindEnd                       // it is about to end for good; exit code, whether programs stay
	kindPlan                      // id, successor
	kindUnplan                    // id
	kindUpgrade                   // the keeper shall become the program of this path

	// What a keeper says.
	kindHello    // version, state directory, names of what is held; with their descriptors
	kindEvent    // an event; with the pipes of a Spawned one
	kindRefused  // records could not be opened; why
	kindWarning  // something to be logged
	kindSignaled // number of the question, error number
	kindAsked    // a signal that came to the keeper
)

const (
	maxFrame  = 64 << 20
	maxRights = 253 // descriptors in one message: SCM_MAX_FD of the kernel
)

// wire sends and receives frames. One goroutine may send while another receives.
type wire struct {
	conn *net.UnixConn
	room []byte // where in lies
	in   []byte // read, not taken yet
	fds  []int  // received, not taken yet
	oob  []byte

	decoder codec.Decoder // of the frame that was taken last
}

// newWire takes over the file of a socket.
func newWire(file *os.File) (*wire, error) {
	defer func() { _ = file.Close() }()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to the other half of the daemon: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, errors.New("cannot talk to the other half of the daemon: this is no Unix socket")
	}
	return &wire{conn: unixConn, oob: make([]byte, unix.CmsgSpace(maxRights*4))}, nil
}

// appendFrame appends a frame to others; fill, if it is not nil, appends what
// belongs to its kind.
func appendFrame(frames []byte, k kind, fill func(*codec.Encoder)) []byte {
	start := len(frames)
	e := codec.Encoder(append(frames, 0, 0, 0, 0))
	e.Int(int(k))
	if fill != nil {
		fill(&e)
	}
	binary.LittleEndian.PutUint32(e[start:], uint32(len(e)-start-4))
	return e
}

// frame returns a single one.
func frame(k kind, fill func(*codec.Encoder)) []byte { return appendFrame(nil, k, fill) }

// send sends frames; the descriptors go with the first.
func (w *wire) send(data []byte, fds ...int) error {
	if len(fds) == 0 {
		_, err := w.conn.Write(data)
		return err
	}
	n, _, err := w.conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	if err == nil && n < len(data) {
		_, err = w.conn.Write(data[n:])
	}
	return err
}

// receive waits for a frame, which is valid until the next call. Its descriptors
// have come when it has.
func (w *wire) receive() (kind, *codec.Decoder, error) {
	for {
		if frame, ok, err := w.next(); ok || err != nil {
			w.decoder = *codec.NewDecoder(frame)
			return kind(w.decoder.Int()), &w.decoder, err
		}
		if err := w.fill(); err != nil {
			return 0, nil, err
		}
	}
}

// next takes a frame from what was read.
func (w *wire) next() ([]byte, bool, error) {
	if len(w.in) < 4 {
		return nil, false, nil
	}
	size := int(binary.LittleEndian.Uint32(w.in))
	if size > maxFrame {
		return nil, false, fmt.Errorf("a frame of %d bytes is too long", size)
	}
	if len(w.in) < 4+size {
		return nil, false, nil
	}
	frame := w.in[4 : 4+size]
	w.in = w.in[4+size:]
	return frame, true, nil
}

// more reports whether the next frame was read already.
func (w *wire) more() bool {
	return len(w.in) >= 4 && len(w.in)-4 >= int(binary.LittleEndian.Uint32(w.in))
}

const readSize = 64 << 10

// errTooManyFiles is the end of a connection of which descriptors were lost.
var errTooManyFiles = errors.New("descriptors for the output of programs do not get through: too many open files")

func (w *wire) fill() error {
	if cap(w.in)-len(w.in) < readSize/2 {
		if len(w.room) < len(w.in)+readSize/2 {
			w.room = make([]byte, 2*len(w.in)+readSize)
		}
		w.in = w.room[:copy(w.room, w.in)]
	}
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(w.in[len(w.in):cap(w.in)], w.oob)
	if err != nil {
		return err
	}
	w.in = w.in[:len(w.in)+n]
	if oobn > 0 {
		err = w.takeRights(w.oob[:oobn])
	}
	if flags&unix.MSG_CTRUNC != 0 { // what comes next would get another's
		return errTooManyFiles
	}
	if oobn > 0 {
		return err
	}
	if n == 0 {
		return net.ErrClosed
	}
	return nil
}

func (w *wire) takeRights(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		w.fds = append(w.fds, fds...)
	}
	return nil
}

// descriptor takes the next descriptor that came; -1 if none did.
func (w *wire) descriptor() int {
	if len(w.fds) == 0 {
		return -1
	}
	fd := w.fds[0]
	w.fds = w.fds[1:]
	return fd
}

func (w *wire) close() {
	_ = w.conn.Close()
	for _, fd := range w.fds {
		_ = unix.Close(fd)
	}
	w.fds = nil
}

// encodeCommand appends a command. What belongs to a foreground only (Listen,
// Inherit, Terminal) has no place in a daemon. A Descriptor means the keeper's
// own of the same number.
func encodeCommand(e *codec.Encoder, c *proc.Command) {
	e.Strings(c.Argv)
	e.Strings(c.Common)
	e.Strings(c.Env)
	e.String(c.Dir)
	for _, n := range []*int{c.Umask, c.Nice, c.OOMScoreAdj} {
		e.Bool(n != nil)
		if n != nil {
			e.Int(*n)
		}
	}
	e.Bool(c.User != nil)
	if c.User != nil {
		e.Uint(uint64(c.User.UID))
		e.Uint(uint64(c.User.GID))
		e.Uint(uint64(len(c.User.Groups)))
		for _, g := range c.User.Groups {
			e.Uint(uint64(g))
		}
	}
	e.Uint(uint64(len(c.Limits)))
	for resource, limit := range c.Limits {
		e.Int(resource)
		e.Uint(limit.Soft)
		e.Uint(limit.Hard)
	}
	for _, s := range []proc.Stdio{c.Stdin, c.Stdout, c.Stderr} {
		e.Int(int(s.Kind))
		e.String(s.Path)
	}
}

// decodeCommand takes a command. Programs mostly have much in common with the one
// before, and share that.
func decodeCommand(d *codec.Decoder, last *proc.Command) *proc.Command {
	c := &proc.Command{
		Argv: d.StringsLike(last.Argv), Common: d.StringsLike(last.Common), Env: d.StringsLike(last.Env), Dir: d.String(),
	}
	for _, n := range []**int{&c.Umask, &c.Nice, &c.OOMScoreAdj} {
		if d.Bool() {
			value := d.Int()
			*n = &value
		}
	}
	if d.Bool() {
		c.User = &proc.User{UID: uint32(d.Uint()), GID: uint32(d.Uint())}
		for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
			c.User.Groups = append(c.User.Groups, uint32(d.Uint()))
		}
	}
	for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
		if c.Limits == nil {
			c.Limits = map[int]proc.Limit{}
		}
		resource := d.Int()
		c.Limits[resource] = proc.Limit{Soft: d.Uint(), Hard: d.Uint()}
	}
	own := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i, s := range []*proc.Stdio{&c.Stdin, &c.Stdout, &c.Stderr} {
		s.Kind, s.Path = proc.StdioKind(d.Int()), d.String()
		if s.Kind == proc.Descriptor {
			s.File = own[i]
		}
	}
	return c
}

func encodeSuccessor(e *codec.Encoder, s proc.Successor) {
	e.String(s.ID)
	e.Int(s.Rank)
	e.Bool(s.Command != nil)
	if s.Command != nil {
		encodeCommand(e, s.Command)
	}
	e.Time(s.After)
	e.Uint(uint64(len(s.Ends)))
	for _, end := range s.Ends {
		proc.EncodeStatus(e, end)
	}
	e.Bool(s.Except)
}

func decodeSuccessor(d *codec.Decoder, last *proc.Command) proc.Successor {
	s := proc.Successor{ID: d.String(), Rank: d.Int()}
	if d.Bool() {
		s.Command = decodeCommand(d, last)
	}
	s.After = d.Time()
	for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
		s.Ends = append(s.Ends, proc.DecodeStatus(d))
	}
	s.Except = d.Bool()
	return s
}

func encodeEvent(e *codec.Encoder, ev proc.Event) (fds []int) {
	e.String(ev.ID)
	e.Int(int(ev.Kind))
	e.Int(ev.PID)
	e.Time(ev.At)
	switch ev.Kind {
	case proc.Spawned:
		for _, fd := range []int{ev.Stdout, ev.Stderr} {
			e.Bool(fd >= 0)
			if fd >= 0 {
				fds = append(fds, fd)
			}
		}
	case proc.Failed:
		proc.EncodeSpawnError(e, ev.Err)
	case proc.Exited:
		proc.EncodeStatus(e, ev.Status)
		e.Int(ev.Left)
	case proc.Lingering:
		e.Uint(uint64(len(ev.Survivors)))
		for _, p := range ev.Survivors {
			e.Int(p.PID)
			e.String(p.Name)
			e.Uint(uint64(p.State))
		}
	}
	return fds
}

func (w *wire) decodeEvent(d *codec.Decoder) proc.Event {
	ev := proc.Event{ID: d.String(), Kind: proc.EventKind(d.Int()), PID: d.Int(), At: d.Time(), Stdout: -1, Stderr: -1}
	switch ev.Kind {
	case proc.Spawned:
		for _, fd := range []*int{&ev.Stdout, &ev.Stderr} {
			if d.Bool() {
				*fd = w.descriptor()
			}
		}
	case proc.Failed:
		ev.Err = proc.DecodeSpawnError(d)
	case proc.Exited:
		ev.Status, ev.Left = proc.DecodeStatus(d), d.Int()
	case proc.Lingering:
		for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
			ev.Survivors = append(ev.Survivors, proc.Process{PID: d.Int(), Name: d.String(), State: byte(d.Uint())})
		}
	}
	return ev
}

// pair returns the two ends of a connection.
func pair() (keeper, worker *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot connect a worker: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "keeper"), nil
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		return unix.EIO
	}
	return errno
}
