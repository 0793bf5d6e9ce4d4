package socket

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// maxPath is the longest path that fits into a sockaddr_un with its final NUL;
// see unix(7).
const maxPath = 107

// DefaultPath returns the path of the control socket when none is named:
// $PM_SOCKET, else pm.sock in [RuntimeDir].
func DefaultPath(getenv func(string) string) string {
	if path := getenv("PM_SOCKET"); path != "" {
		return path
	}
	return filepath.Join(RuntimeDir(getenv), "pm.sock")
}

// RuntimeDir returns the directory for what lives only as long as the machine
// is up: /run/pm for root, else $XDG_RUNTIME_DIR/pm. Without that variable, as
// under cron or su, it is where the variable usually points, or a directory of
// the user's own below $TMPDIR or /tmp.
func RuntimeDir(getenv func(string) string) string { return runtimeDir(os.Geteuid(), getenv) }

func runtimeDir(uid int, getenv func(string) string) string {
	if uid == 0 {
		return "/run/pm"
	}
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "pm")
	}
	if dir := filepath.Join("/run/user", strconv.Itoa(uid)); isDir(dir) {
		return filepath.Join(dir, "pm")
	}
	tmp := getenv("TMPDIR")
	if tmp == "" {
		tmp = "/tmp"
	}
	return filepath.Join(tmp, "pm-"+strconv.Itoa(uid))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// usablePath returns path made absolute, or why no socket can be there. An
// absolute path also keeps a leading @ from meaning an abstract socket, which
// every user of the machine could reach.
func usablePath(path string) (string, error) {
	if path == "" {
		return "", &Problem{Message: "no socket is named", Hint: "name it with --socket or PM_SOCKET", Code: CodeUsage}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("cannot make socket path %s absolute: %w", path, err)
	}
	if len(abs) > maxPath {
		return "", &Problem{
			Message: fmt.Sprintf("socket path %s is %d bytes long, and the kernel takes at most %d", abs, len(abs), maxPath),
			Hint:    "name a shorter one with --socket or PM_SOCKET",
			Code:    CodeUsage,
		}
	}
	return abs, nil
}
