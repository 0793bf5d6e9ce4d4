package socket

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestGiven(t *testing.T) {
	dir := t.TempDir()
	unix := filepath.Join(dir, "s")
	var files []*os.File
	add := func(f *os.File, err error) {
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		t.Cleanup(func() { _ = f.Close() })
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tcp.Close() }()
	add(os.Create(filepath.Join(dir, "plain")))
	add(tcp.(*net.TCPListener).File())
	gram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "gram")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gram.Close() }()
	add(gram.File())
	if l, err := Given(files, ListenOptions{}); l != nil || err != nil {
		t.Fatalf("among sockets of other kinds: %v, %v", l, err)
	}
	stream, err := net.ListenUnix("unix", &net.UnixAddr{Name: unix})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	add(stream.File())
	l, err := Given(files, ListenOptions{Group: "0"})
	if err != nil || l == nil || l.Addr().String() != unix {
		t.Fatalf("Given: %v, %v", l, err)
	}
	if l.(given).gid != 0 {
		t.Errorf("the group is not let in")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// Whoever has passed it still listens.
	conn, err := net.Dial("unix", unix)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}
