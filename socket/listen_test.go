package socket

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestListenMode(t *testing.T) {
	gid := strconv.Itoa(os.Getgid())
	for _, c := range []struct {
		name, group string
		socket, dir fs.FileMode
	}{
		{"owner", "", 0o600, 0o700},
		{"group", gid, 0o660, 0o710},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(socketPath(t), "s")
			defer os.Remove(filepath.Dir(path))
			ln, err := Listen(path, ListenOptions{Group: c.group})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			for file, want := range map[string]fs.FileMode{path: c.socket, filepath.Dir(path): c.dir} {
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				if got := info.Mode().Perm(); got != want {
					t.Errorf("mode of %s is %o, want %o", file, got, want)
				}
			}
			if got := ln.Addr().String(); got != path {
				t.Errorf("listens on %s, want %s", got, path)
			}
		})
	}
}

func TestListenRefuses(t *testing.T) {
	path := socketPath(t)
	file := path + ".file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(file)
	link := path + ".link"
	if err := os.Symlink("elsewhere", link); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	long := filepath.Join(filepath.Dir(path), strings.Repeat("x", 108-len(filepath.Dir(path))-1))
	for _, c := range []struct {
		name, path, group, says string
		code                    int
	}{
		{"no path", "", "", "no socket is named", CodeUsage},
		{"too long", long, "", "is 108 bytes long, and the kernel takes at most 107", CodeUsage},
		{"a file", file, "", "exists and is no socket", CodeUsage},
		{"a link", link, "", "exists and is no socket", CodeUsage},
		{"no such group", path, "no-such-group", `"no-such-group"`, CodeUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := Listen(c.path, ListenOptions{Group: c.group})
			if err == nil {
				ln.Close()
				t.Fatal("it listens")
			}
			var p *Problem
			if !errors.As(err, &p) || p.Code != c.code || !strings.Contains(p.Message, c.says) || p.Hint == "" {
				t.Errorf("got %+v, want code %d, a hint and %q", err, c.code, c.says)
			}
		})
	}
}

// A path of exactly the kernel's limit works, although the name that the
// socket is first made under is longer.
func TestListenLongestPath(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	deep := filepath.Join(dir, strings.Repeat("d", 107-len(dir)-3))
	defer os.Remove(deep)
	path := filepath.Join(deep, "s")
	if len(path) != maxPath {
		t.Fatalf("the test's path has %d bytes", len(path))
	}
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	connect(t, path)
}

func TestListenReplacesStale(t *testing.T) {
	path := socketPath(t)
	leaveStale(t, path)
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	connect(t, path)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("the directory holds %v, %v; want the socket alone", entries, err)
	}
}

// leaveStale leaves a socket that nobody listens on, as a killed daemon does.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial of a stale socket: %v", err)
	}
}

func TestListenRefusesServed(t *testing.T) {
	path := socketPath(t)
	ln, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = Listen(path, ListenOptions{})
	var p *Problem
	if !errors.As(err, &p) || !strings.Contains(p.Message, "already served by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("second Listen: %v", err)
	}
	connect(t, path)
}

// Of many that start at once, over a stale socket or none, one gets the path.
func TestListenRace(t *testing.T) {
	for _, stale := range []bool{false, true} {
		t.Run("stale "+strconv.FormatBool(stale), func(t *testing.T) {
			path := socketPath(t)
			if stale {
				leaveStale(t, path)
			}
			const starters = 16
			won := make(chan net.Listener, starters)
			var all sync.WaitGroup
			for range starters {
				all.Go(func() {
					if ln, err := Listen(path, ListenOptions{}); err == nil {
						won <- ln
					}
				})
			}
			all.Wait()
			close(won)
			winners := 0
			for ln := range won {
				winners++
				if !ln.(*listener).ours() {
					t.Error("a winner does not have the path")
				}
				ln.Close()
			}
			if winners != 1 {
				t.Errorf("%d of %d won, want 1", winners, starters)
			}
		})
	}
}

func TestCloseLeavesSuccessor(t *testing.T) {
	path := socketPath(t)
	old, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	next, err := Listen(path, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	connect(t, path)
}

func TestTrusted(t *testing.T) {
	for _, c := range []struct {
		owner, me int
		want      bool
	}{
		{0, 0, true}, {1000, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false},
	} {
		if got := trusted(c.owner, c.me); got != c.want {
			t.Errorf("trusted(%d, %d) = %v", c.owner, c.me, got)
		}
	}
}

// The socket comes back when it is removed, replaced by a stale one, or goes
// with its directory.
func TestSocketComesBack(t *testing.T) {
	moves := 0
	for name, lose := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"moved": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".away"))
			t.Cleanup(func() { os.Remove(path + ".away") })
		},
		"replaced by a stale one": func(t *testing.T, path string) {
			leaveStale(t, path+".stale")
			must(t, os.Rename(path+".stale", path))
		},
		"directory removed": func(t *testing.T, path string) {
			for errors.Is(os.RemoveAll(filepath.Dir(path)), syscall.ENOTEMPTY) {
				t.Log("the socket came back sooner than its directory went")
			}
		},
		"directory moved": func(t *testing.T, path string) {
			away := filepath.Dir(path) + ".away" + strconv.Itoa(moves)
			moves++
			must(t, os.Rename(filepath.Dir(path), away))
			t.Cleanup(func() { os.RemoveAll(away) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(socketPath(t), "s")
			t.Cleanup(func() { os.Remove(filepath.Dir(path)) })
			serveAt(t, path, &fake{}, ServerOptions{}, defaultBounds())
			for range 2 {
				lose(t, path)
				client := dialled(t, path)
				client.FirstPatience, client.Patience = patience, patience
				if _, err := client.Version(bounded(t)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A socket that another process serves by now is not taken back.
func TestKeepYields(t *testing.T) {
	path := socketPath(t)
	said := newLines()
	stop := serveAt(t, path, &fake{}, ServerOptions{Log: said.logger()}, defaultBounds())
	must(t, os.Rename(path, path+".away"))
	defer os.Remove(path + ".away")
	other, err := Listen(path, ListenOptions{})
	for err != nil { // it may have come back already: take it again
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		other, err = Listen(path, ListenOptions{})
	}
	defer other.Close()
	said.wait(t, "already served by process")
	stop()
	if !other.(*listener).ours() {
		t.Error("the other's socket is gone")
	}
}

func TestReadChanges(t *testing.T) {
	event := func(mask uint32, name string) []byte {
		b := make([]byte, unix.SizeofInotifyEvent+16)
		binary.NativeEndian.PutUint32(b[4:], mask)
		binary.NativeEndian.PutUint32(b[12:], 16)
		copy(b[unix.SizeofInotifyEvent:], name)
		return b
	}
	for _, c := range []struct {
		name          string
		events        []byte
		changed, anew bool
	}{
		{"nothing", nil, false, false},
		{"another", event(unix.IN_DELETE, "t"), false, false},
		{"ours", event(unix.IN_DELETE, "s"), true, false},
		{"ours second", append(event(unix.IN_DELETE, "t"), event(unix.IN_MOVED_FROM, "s")...), true, false},
		{"overflow", event(unix.IN_Q_OVERFLOW, ""), true, false},
		{"directory gone", event(unix.IN_DELETE_SELF, ""), false, true},
		{"watch gone", event(unix.IN_IGNORED, ""), false, true},
		{"cut short", event(unix.IN_DELETE, "t")[:20], true, true},
	} {
		changed, anew := readChanges(c.events, "s")
		if changed != c.changed || anew != c.anew {
			t.Errorf("%s: changed %v, anew %v", c.name, changed, anew)
		}
	}
}

func TestDenied(t *testing.T) {
	var p *Problem
	if err := denied("cannot listen", os.ErrPermission); !errors.As(err, &p) || p.Code != CodePermission || p.Hint == "" {
		t.Errorf("permission: %+v", err)
	}
	if err := denied("cannot listen", syscall.EIO); err.Error() != "cannot listen: input/output error" || !errors.Is(err, syscall.EIO) {
		t.Errorf("another: %v", err)
	}
	first := &Problem{Message: "first"}
	if err := denied("cannot listen", first); err != first {
		t.Errorf("a Problem: %v", err)
	}
}

func TestPeerString(t *testing.T) {
	if got := (Peer{PID: 4711, UID: 0, GID: 5}).String(); got != "uid 0 pid 4711" {
		t.Errorf("got %q", got)
	}
}

func TestDefaultPath(t *testing.T) {
	env := map[string]string{"XDG_RUNTIME_DIR": "/xdg", "TMPDIR": "/elsewhere"}
	getenv := func(key string) string { return env[key] }
	want := "/xdg/pm/pm.sock"
	if os.Geteuid() == 0 {
		want = "/run/pm/pm.sock"
	}
	if got := DefaultPath(getenv); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, c := range []struct {
		uid            int
		xdg, tmp, want string
	}{
		{0, "/xdg", "/t", "/run/pm"},
		{1 << 30, "/xdg", "/t", "/xdg/pm"},
		{1 << 30, "", "/t", "/t/pm-1073741824"},
		{1 << 30, "", "", "/tmp/pm-1073741824"},
	} {
		env["XDG_RUNTIME_DIR"], env["TMPDIR"] = c.xdg, c.tmp
		if got := runtimeDir(c.uid, getenv); got != c.want {
			t.Errorf("runtimeDir of %+v: %s", c, got)
		}
	}
	env["PM_SOCKET"] = "/my/sock"
	if got := DefaultPath(getenv); got != "/my/sock" {
		t.Errorf("got %s, want $PM_SOCKET", got)
	}
}
