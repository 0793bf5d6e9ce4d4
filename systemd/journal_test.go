package systemd_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"pm.example/systemd"
)

// journald is a journal that hands over what it gets.
type journald struct{ *net.UnixConn }

func newJournald(t *testing.T, path string) journald {
	t.Helper()
	_ = os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return journald{conn}
}

// entry reads one entry, from the datagram or the file that it passes.
func (j journald) entry(t *testing.T) (entry []byte, passed bool) {
	t.Helper()
	buf, oob := make([]byte, 1<<20), make([]byte, 64)
	n, oobn, _, _, err := j.ReadMsgUnix(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if oobn == 0 {
		return buf[:n], false
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		t.Fatal(err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	seals, err := unix.FcntlInt(uintptr(fds[0]), unix.F_GET_SEALS, 0)
	if want := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE; err != nil || seals != want {
		t.Errorf("seals %x, %v; want %x", seals, err, want)
	}
	file := os.NewFile(uintptr(fds[0]), "entry")
	defer func() { _ = file.Close() }()
	entry, err = io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
	if err != nil {
		t.Fatal(err)
	}
	return entry, true
}

func TestJournalEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	daemon := newJournald(t, path)
	j, err := systemd.OpenJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 4<<20)
	for _, c := range []struct {
		fields []systemd.Field
		want   string
		passed bool
	}{
		{[]systemd.Field{{"MESSAGE", "hello"}, {"PRIORITY", "6"}}, "MESSAGE=hello\nPRIORITY=6\n", false},
		{[]systemd.Field{{"MESSAGE", "a\nb"}}, "MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n", false},
		{[]systemd.Field{{"MESSAGE", ""}}, "MESSAGE=\n", false},
		{[]systemd.Field{{"MESSAGE", long}}, "MESSAGE=" + long + "\n", true},
	} {
		if err := j.Send(c.fields...); err != nil {
			t.Fatal(err)
		}
		if got, passed := daemon.entry(t); !bytes.Equal(got, []byte(c.want)) || passed != c.passed {
			t.Errorf("the journal gets %.60q (passed as a file: %v), want %.60q (%v)", got, passed, c.want, c.passed)
		}
	}
	// A journal that was started anew.
	_ = daemon.Close()
	if err := j.Send(systemd.Field{Name: "MESSAGE", Value: "lost"}); err == nil {
		t.Error("nobody says that the journal is gone")
	}
	daemon = newJournald(t, path)
	if err := j.Send(systemd.Field{Name: "MESSAGE", Value: "again"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := daemon.entry(t); string(got) != "MESSAGE=again\n" {
		t.Errorf("the new journal gets %q", got)
	}
}

func TestFieldName(t *testing.T) {
	for key, want := range map[string]string{
		"instance": "PM_INSTANCE", "a.b-c": "PM_A_B_C", "ä": "PM__", strings.Repeat("k", 100): "PM_" + strings.Repeat("K", 61),
	} {
		if got := systemd.FieldName("PM_", key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func TestOnJournal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for variable, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, "": false,
	} {
		if got := systemd.OnJournal(file, variable); got != want {
			t.Errorf("JOURNAL_STREAM=%s: %v", variable, got)
		}
	}
}
