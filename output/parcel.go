package output

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Lines that are changed on their way cannot be moved by the kernel alone. Such a
// parcel goes from the pipe into a file of its own first, again by splice(2), behind
// a head that says where in the target it will stand. Then it is written there, and
// at last the file of the parcel is emptied. Who finds a parcel after a kill cuts the
// target back to where it began and writes it again: so none is lost or doubled.

// headSize is the length of a parcel's head: the target's inode and length, the
// length of the parcel, when it was read, the stream, the length of the instance's
// name, and that.
const (
	headSize    = 512
	headNumbers = 34
	headOffset  = 8
)

type head struct {
	inode  uint64
	offset int64
	size   int64
	parcel parcel
}

func (d head) bytes() []byte {
	b := make([]byte, 0, headSize)
	b = binary.LittleEndian.AppendUint64(b, d.inode)
	b = binary.LittleEndian.AppendUint64(b, uint64(d.offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(d.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(d.parcel.at.UnixNano()))
	name := d.parcel.instance[:min(len(d.parcel.instance), headSize-headNumbers)]
	b = append(b, byte(d.parcel.stream), byte(min(len(name), 255)))
	return append(b, name[:min(len(name), 255)]...)[:headSize]
}

func readHead(b []byte) head {
	number := func(n int) uint64 { return binary.LittleEndian.Uint64(b[8*n:]) }
	d := head{inode: number(0), offset: int64(number(1)), size: int64(number(2))}
	d.parcel.at, d.parcel.stream = time.Unix(0, int64(number(3))), Stream(b[32])
	d.parcel.instance = string(b[headNumbers : headNumbers+int(b[33])])
	return d
}

// parcelSize is the most of a pipe that is on its way at once: a file takes all of it or
// nothing, so it must not need much room.
const parcelSize = fullPipe

// moveLines moves some lines of what the pipe holds, in another form.
func (f *File) moveLines(s *source, h *hands, now time.Time) (int, error) {
	data, err := h.peek(s.fd)
	if err != nil {
		return 0, err
	}
	data = data[:min(len(data), parcelSize)]
	if s.shared || f.options.JSON {
		data = data[:wholeLines(data, s.fd)]
	}
	if len(data) == 0 {
		return 0, unix.EAGAIN
	}
	b := parcel{data: data, at: now, instance: s.instance, stream: s.stream}
	room := f.room()
	if f.due(now) {
		room = 0
	}
	text, used := f.options.format(b, room, f.midLine)
	if !f.midLine && f.size > 0 && (f.due(now) || int64(len(text)) > f.room()) {
		if err := f.rotate(); err != nil {
			return 0, err
		}
		text, used = f.options.format(b, f.room(), false)
	}
	if err := f.keep(s, b, used); err != nil {
		return 0, err
	}
	if err := f.put(text, s, now); err != nil {
		return 0, err
	}
	return used, nil
}

// keep moves the first n bytes of the parcel, which the pipe holds, into its file.
func (f *File) keep(s *source, b parcel, n int) error {
	whole, err := f.spool.keep(s, head{inode: f.inode, offset: f.size, size: int64(n), parcel: b})
	if err != nil || whole {
		return err
	}
	// No room for all of it: it is written in pieces.
	if err := f.redo(s); err != nil {
		return err
	}
	return later(lineTime)
}

// put writes text at the end of the file, all of it or nothing, and is done with
// the parcel.
func (f *File) put(text []byte, s *source, now time.Time) error {
	at := f.size
	for rest := text; len(rest) > 0; {
		n, err := unix.Pwrite(f.fd, rest, f.size)
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			f.size = at
			return errors.Join(err, unix.Ftruncate(f.fd, at))
		}
		f.size, rest = f.size+int64(max(n, 0)), rest[max(n, 0):]
	}
	if _, err := unix.Seek(f.fd, f.size, unix.SEEK_SET); err != nil {
		return err
	}
	f.last = now
	if f.midLine = !f.endsLine(); f.midLine {
		f.owner = s
	}
	return f.spool.forget()
}

// redo writes a parcel that is not known to have been written: after a kill, or
// when there was no room. s is the pipe that is read now, if one is.
func (f *File) redo(s *source) error {
	d, err := f.spool.load(s)
	if err != nil || len(d.parcel.data) == 0 {
		return err
	}
	if d.inode == f.inode && f.size > d.offset {
		if err := f.cutBack(d.offset); err != nil {
			return err
		}
	}
	text, _ := f.options.format(d.parcel, 1<<62, f.midLine)
	return f.put(text, s, d.parcel.at)
}

// cutBack removes from the file what a killed process has written of a parcel.
func (f *File) cutBack(to int64) error {
	if err := unix.Ftruncate(f.fd, to); err != nil {
		return err
	}
	return f.look()
}

// openSpool opens the file of the parcel, and writes what is in it.
func (f *File) openSpool(s *source) error {
	if err := f.spool.reach(); err != nil {
		return err
	}
	if f.spool.pending {
		return f.redo(s)
	}
	return nil
}
