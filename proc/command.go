package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"pm.example/proc/inherited"
)

// Command says what to start and in which circumstances. Everything in it
// reaches the child only; pm itself is never changed.
type Command struct {
	// Argv is the program and its arguments. A program without a slash is
	// looked up in the PATH of Env; a relative path is relative to Dir.
	Argv []string
	// Path is the file of the program; empty: it is found by Argv[0].
	Path string
	// Env is the environment, as KEY=value; a later entry wins.
	Env []string
	// Common comes before Env: what the environments of many programs have in
	// common, and is in memory once. It must not be changed.
	Common []string
	// Dir is the working directory; empty: pm's own.
	Dir string
	// Umask is the file mode creation mask; nil: pm's own.
	Umask *int
	// User is the identity to take on; nil: pm's own.
	User *User
	// Limits are resource limits by their setrlimit(2) number. The limit of
	// open files, if not given, is the one that pm itself was started with.
	Limits map[int]Limit
	// Nice and OOMScoreAdj are set if not nil.
	Nice, OOMScoreAdj *int
	// Stdin, Stdout and Stderr are the first three descriptors.
	Stdin, Stdout, Stderr Stdio
	// Listen are open files for descriptors 3 and up, as in sd_listen_fds(3): the
	// child's LISTEN_PID is set to its own pid.
	Listen []*os.File
	// Inherit also gives the program what pm itself got from its own parent
	// beyond the first three descriptors.
	Inherit bool
	// Terminal leaves the program in pm's session, in a process group of its
	// own, and in the foreground if pm is. Otherwise it leads its own session.
	Terminal bool
	// Shared, with Terminal, leaves it in pm's process group too: it is a part of
	// whatever job of a shell pm is a part of.
	Shared bool
}

// User is an identity: numbers only, looked up by the caller.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups; none: none.
	Groups []uint32
}

// Limit is a soft and a hard limit; ^uint64(0) is no limit.
type Limit struct{ Soft, Hard uint64 }

// Stdio says what one of the first three descriptors is.
type Stdio struct {
	// Kind chooses; the zero value is /dev/null.
	Kind StdioKind
	// Path is the file of File, Input and Fifo.
	Path string
	// File is the open file of Descriptor. It stays the caller's.
	File *os.File
}

// StdioKind is the sort of a descriptor.
type StdioKind int

// The kinds of descriptors.
const (
	Null       StdioKind = iota // /dev/null
	Pipe                        // a pipe to pm; Event.Stdout or Event.Stderr has its read end
	File                        // a file, created if missing and appended to; /dev/stdout and /dev/stderr are pm's own
	Input                       // a file to read
	Descriptor                  // an open file of pm's
	SameStdout                  // stderr only: whatever stdout is
	Fifo                        // a FIFO to read, made if missing, that has no end
)

// SpawnError tells why a process could not be started: what was tried, on
// what, and why it failed.
type SpawnError struct {
	// Doing is what failed, in the user's words: `workingdir "/x"`.
	Doing string
	// Err is the reason.
	Err error
	// Passing says that the same attempt may succeed later: the system lacked
	// processes, descriptors or memory. Otherwise the description is wrong.
	Passing bool
}

func (e *SpawnError) Error() string { return e.Doing + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *SpawnError) Unwrap() error { return e.Err }

// Missing reports whether the program itself does not exist.
func (e *SpawnError) Missing() bool {
	return strings.HasPrefix(e.Doing, "cmd ") && (errors.Is(e.Err, fs.ErrNotExist) || errors.Is(e.Err, errNoCommand))
}

var (
	errNoCommand    = errors.New("no such command")
	errNotInPath    = fmt.Errorf("%w in its PATH", errNoCommand)
	errNoInterprete = errors.New("its interpreter (the first line of the script, or the dynamic loader) does not exist")
	errFormat       = errors.New("not a program this machine can run (a script needs a first line such as #!/bin/sh)")
)

func spawnError(doing string, err error) *SpawnError {
	return &SpawnError{Doing: doing, Err: words(err), Passing: passing(err)}
}

// passing reports whether err is a lack that may go away.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ENOSPC, unix.ETXTBSY} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// words strips the operation and the path from an error that already stand in
// front of it.
func words(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Bounds of what a child can be given.
const (
	maxListen = 61 // a short table is 64 descriptors: fs/file.c, NR_OPEN_DEFAULT
	maxFiles  = 3 + maxListen
)

// slots are low descriptors of pm's, reserved for handing files to a child: by
// closing all above them the child copies a short table (see image.vfork).
type slots struct {
	keeper *Keeper
	null   int
	fds    []int
	nulls  []bool // which of them refer to null
	pin    *pin   // of the launches; nil: they need none
	env    environment
}

func newSlots(k *Keeper) (*slots, error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/null: %w", err)
	}
	s := &slots{keeper: k, null: null}
	if !k.job() {
		s.pin = newPin()
	}
	if err := s.grow(3); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// grow reserves slots until there are n.
func (s *slots) grow(n int) error {
	for len(s.fds) < n {
		// Not below maxFiles, so that filling descriptor i never overwrites a slot.
		fd, err := unix.FcntlInt(uintptr(s.null), unix.F_DUPFD_CLOEXEC, maxFiles)
		if err == unix.EINVAL || err == unix.EMFILE {
			return fmt.Errorf("cannot reserve descriptors: the limit of open files is too low, or too many are open (pm needs %d; see ulimit -n)", 2*maxFiles)
		}
		if err != nil {
			return fmt.Errorf("cannot reserve a descriptor: %w", err)
		}
		s.fds, s.nulls = append(s.fds, fd), append(s.nulls, true)
	}
	return nil
}

// put makes slot i refer to fd. The kernel calls a slot bad that lies beyond a limit
// that was lowered since.
func (s *slots) put(i, fd int) error {
	if s.nulls[i] && fd == s.null {
		return nil
	}
	s.nulls[i] = fd == s.null
	err := unix.Dup3(fd, s.fds[i], unix.O_CLOEXEC)
	if err == unix.EBADF {
		return unix.EMFILE
	}
	return err
}

// reset lets go of what the slots referred to: a pipe held here would never
// reach its end.
func (s *slots) reset() {
	for i := range s.fds {
		_ = s.put(i, s.null)
	}
}

func (s *slots) close() {
	for _, fd := range append(s.fds, s.null) {
		_ = unix.Close(fd)
	}
}

// end returns the first descriptor after all slots.
func (s *slots) end() uintptr {
	end := 0
	for _, fd := range s.fds {
		end = max(end, fd+1)
	}
	return uintptr(end)
}

// spawned is a process that has just been started.
type spawned struct {
	pid            int
	start          time.Time
	stdout, stderr int    // read ends of pipes; -1: none
	cgroup         string // that it was born in; empty: pm's own
}

// spawn starts c with the given tag (0: none) in the given cgroup (empty: pm's
// own). begin, if it is not nil, is called when the pipes are there and the launch
// is next. Besides the process it returns the pid of a child that failed before its
// execve and is to be reaped. The calling goroutine must be
// the only user of s.
func (s *slots) spawn(c *Command, tag uint64, cgroup string, begin func(*spawned)) (spawned, int, *SpawnError) {
	out := spawned{stdout: -1, stderr: -1}
	path, fail := lookPath(c)
	if fail != nil {
		return out, 0, fail
	}
	if err := s.grow(3 + len(c.Listen)); err != nil {
		return out, 0, spawnError("cannot pass descriptors", err)
	}
	im, fail := newImage(c, path, tag, s)
	if fail != nil {
		return out, 0, fail
	}
	defer s.reset()
	if fail := s.files(c, &out); fail != nil {
		out.closePipes()
		return out, 0, fail
	}
	if cgroup != "" {
		im.cgroup = s.keeper.cgroups.open(cgroup)
		defer func() { im.leaveCgroup() }()
	}
	if begin != nil {
		begin(&out)
	}
	out.start = time.Now() // before the launch: it may end before that returns
	pid, errno := im.launch()
	if errno != 0 && im.failed == stageClone && im.cgroup >= 0 {
		im.leaveCgroup() // it is gone, or one that nobody can be born in: the task does without
		pid, errno = im.launch()
	}
	if errno != 0 {
		out.closePipes()
		return out, pid, im.explain(c, path, errno)
	}
	out.pid = pid
	if im.cgroup >= 0 {
		out.cgroup = cgroup
	}
	return out, 0, nil
}

func (im *image) leaveCgroup() {
	_ = unix.Close(im.cgroup)
	im.cgroup = -1
}

func (p *spawned) pipes() [2]int { return [2]int{p.stdout, p.stderr} }

func (p *spawned) closePipes() {
	for _, fd := range []*int{&p.stdout, &p.stderr} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}

// files opens the child's descriptors into the slots.
func (s *slots) files(c *Command, out *spawned) *SpawnError {
	for i, f := range []struct {
		name  string
		stdio Stdio
		read  *int
	}{{"stdin", c.Stdin, nil}, {"stdout", c.Stdout, &out.stdout}, {"stderr", c.Stderr, &out.stderr}} {
		if err := s.file(i, f.stdio, c, f.read); err != nil {
			return spawnError(strings.TrimSpace(f.name+" "+quoted(f.stdio.Path)), err)
		}
	}
	for i, f := range c.Listen {
		if err := s.put(3+i, int(f.Fd())); err != nil {
			return spawnError(fmt.Sprintf("descriptor %d", 3+i), err)
		}
	}
	return nil
}

func quoted(path string) string {
	if path == "" {
		return ""
	}
	return strconv.Quote(path)
}

func (s *slots) file(i int, io Stdio, c *Command, read *int) error {
	switch io.Kind {
	case Pipe:
		return s.pipe(i, c, read)
	case File:
		if own := OwnOutput(io.Path); own != nil {
			return s.put(i, int(own.Fd()))
		}
		return s.open(i, absolute(c.Dir, io.Path), unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT)
	case Input:
		return s.open(i, absolute(c.Dir, io.Path), unix.O_RDONLY)
	case Fifo:
		return s.fifo(i, io.Path, c)
	case Descriptor:
		return s.put(i, int(io.File.Fd()))
	case SameStdout:
		return s.put(i, s.fds[1])
	default:
		return s.put(i, s.null)
	}
}

// OwnOutput returns the stream of pm's own that a path stands for, as /dev/stdout; nil if
// it is no such path. A program gets that descriptor itself: a socket cannot be opened
// by its name, and of a file that is opened once more each would write over the other's end.
func OwnOutput(path string) *os.File {
	switch filepath.Clean(path) {
	case "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1":
		return os.Stdout
	case "/dev/stderr", "/dev/fd/2", "/proc/self/fd/2":
		return os.Stderr
	}
	return nil
}

// pipe makes slot i the writing end of a new pipe. Where pipes are held the
// program gets an end that could read as well: so it never dies of SIGPIPE, not
// even when every process of pm is killed, and what it writes meanwhile waits
// for the next keeper (see [Keeper.reopen]).
func (s *slots) pipe(i int, c *Command, read *int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	*read = p[0]
	if !s.keeper.holds {
		return s.move(i, p[1])
	}
	if IsSpare(p[1]) {
		_ = unix.Close(p[1])
		return unix.EMFILE
	}
	both, err := unix.Open("/proc/self/fd/"+strconv.Itoa(p[1]), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil { // without /proc
		return s.move(i, p[1])
	}
	if c.User != nil { // so that it can open /dev/stdout
		_ = unix.Fchown(both, int(c.User.UID), int(c.User.GID))
	}
	_ = unix.Close(p[1])
	return s.move(i, both)
}

// fifo makes slot i a FIFO. The program gets an end that could write as well: it
// waits for input when nobody writes, instead of finding its end.
func (s *slots) fifo(i int, path string, c *Command) error {
	if err := unix.Mkfifo(path, 0o600); err != nil && err != unix.EEXIST {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if c.User != nil { // so that it can open /dev/stdin
		_ = unix.Fchown(fd, int(c.User.UID), int(c.User.GID))
	}
	return s.move(i, fd)
}

func absolute(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// open opens path into slot i. It never waits: a FIFO that nobody reads is an
// error (ENXIO), not a hang.
func (s *slots) open(i int, path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0o666)
	if err != nil {
		if err == unix.ENXIO {
			return errors.New("it is a FIFO or socket that nobody reads")
		}
		return err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		_ = unix.Close(fd)
		return err
	}
	return s.move(i, fd)
}

// move makes slot i refer to what fd refers to, and closes fd.
func (s *slots) move(i, fd int) error {
	err := s.put(i, fd)
	_ = unix.Close(fd)
	return err
}

// newImage lays out what the child needs, in memory that the child can use
// without allocating.
func newImage(c *Command, path string, tag uint64, s *slots) (*image, *SpawnError) {
	im := &image{
		slots:     s.fds[:3+len(c.Listen)],
		closeFrom: s.end(),
		inherit:   c.Inherit,
		umask:     -1,
		cgroup:    -1,
		session:   !c.Terminal,
		group:     c.Terminal && !c.Shared,
		terminal:  -1,
		tag:       unix.Rlimit{Cur: tag, Max: tag},
		parent:    uintptr(os.Getpid()),
		pin:       s.pin,
		slack:     ownSlack,
	}
	if len(c.Listen) > maxListen {
		return nil, &SpawnError{Doing: "cannot pass descriptors", Err: fmt.Errorf("%d are too many (at most %d)", len(c.Listen), maxListen)}
	}
	if !c.Inherit {
		im.ignored = ignoredSignals()
	} else {
		im.closeFrom = lastFD // closes nothing, but gives the child its own table
	}
	if im.group {
		im.terminal = foregroundSlot(c)
	}
	for _, text := range append([]string{path, c.Dir}, c.Argv...) {
		if strings.IndexByte(text, 0) >= 0 {
			return nil, &SpawnError{Doing: "cmd " + strconv.Quote(text), Err: errors.New("it contains a NUL byte")}
		}
	}
	im.path = cString(path)
	im.argv = cStrings(c.Argv)
	env := s.env.dedupe(c.Common, c.Env)
	if len(c.Listen) > 0 {
		im.envv, im.listenPID = listenEnv(env, len(c.Listen))
	} else {
		im.envv = s.env.lay(env)
	}
	if c.Dir != "" {
		im.dir = cString(c.Dir)
	}
	if c.Umask != nil {
		im.umask = *c.Umask
	}
	if c.Nice != nil {
		im.setNice, im.nice = true, *c.Nice
	}
	if c.OOMScoreAdj != nil {
		im.oom, im.oomPath = []byte(strconv.Itoa(*c.OOMScoreAdj)), cString("/proc/self/oom_score_adj")
	}
	if u := c.User; u != nil && !isSelf(u) {
		im.setCred, im.uid, im.gid, im.groups = true, uintptr(u.UID), uintptr(u.GID), u.Groups
	}
	im.limits = childLimits(c.Limits)
	return im, nil
}

// isSelf reports whether u is what pm already is and pm could not change
// anyway: an unprivileged pm may name its own user.
func isSelf(u *User) bool {
	return os.Geteuid() != 0 && int(u.UID) == os.Geteuid() && int(u.GID) == os.Getegid()
}

func childLimits(limits map[int]Limit) []childLimit {
	out := make([]childLimit, 0, len(limits)+1)
	for resource, l := range limits {
		out = append(out, childLimit{uintptr(resource), unix.Rlimit{Cur: l.Soft, Max: l.Hard}})
	}
	if _, given := limits[unix.RLIMIT_NOFILE]; !given {
		if soft, hard := inherited.NoFile(); hard > 0 {
			out = append(out, childLimit{unix.RLIMIT_NOFILE, unix.Rlimit{Cur: soft, Max: hard}})
		}
	}
	return out
}

// explain puts a failure of the child into the user's words.
func (im *image) explain(c *Command, path string, errno syscall.Errno) *SpawnError {
	switch im.failed {
	case stageClone:
		return spawnError("cannot create a process", errno)
	case stageClose:
		return spawnError("cannot close descriptors (pm needs Linux 5.9)", errno)
	case stageSession:
		return spawnError("cannot start a session", errno)
	case stageTag:
		return spawnError("cannot tag the process", errno)
	case stageLimit:
		l := im.limits[im.failedAt]
		return spawnError(fmt.Sprintf("limits.%s %s", limitName(int(l.resource)), l), errno)
	case stageNice:
		return spawnError(fmt.Sprintf("limits.nice %d", im.nice), errno)
	case stageOOM:
		return spawnError("limits.oom_score_adj "+string(im.oom), errno)
	case stageGroups, stageGID, stageUID:
		return spawnError(fmt.Sprintf("user %d, group %d", im.uid, im.gid), errno)
	case stageDir:
		return spawnError("workingdir "+strconv.Quote(c.Dir), errno)
	case stageFile:
		return spawnError(fmt.Sprintf("descriptor %d", im.failedAt), errno)
	default:
		return explainExec(path, errno)
	}
}

// explainExec names what execve(2) reports in one word for several things.
func explainExec(path string, errno syscall.Errno) *SpawnError {
	doing := "cmd " + strconv.Quote(path)
	switch errno {
	case unix.ENOENT:
		if _, err := os.Stat(path); err == nil {
			return &SpawnError{Doing: doing, Err: errNoInterprete}
		}
		return &SpawnError{Doing: doing, Err: errNoCommand}
	case unix.ENOEXEC:
		return &SpawnError{Doing: doing, Err: errFormat}
	case unix.EACCES:
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return &SpawnError{Doing: doing, Err: errors.New("it is a directory")}
		}
		return &SpawnError{Doing: doing, Err: errors.New("not executable, or not permitted")}
	}
	return spawnError(doing, errno)
}

// lookPath finds the program of c as execvp(3) would, in the PATH that the
// program itself will see.
func lookPath(c *Command) (string, *SpawnError) {
	if len(c.Argv) == 0 || c.Argv[0] == "" {
		return "", &SpawnError{Doing: "cmd", Err: errors.New("it is empty")}
	}
	if c.Path != "" {
		return c.Path, nil
	}
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		return name, nil
	}
	var denied string
	for _, dir := range filepath.SplitList(c.lookupEnv("PATH", defaultPath)) {
		path := filepath.Join(absolute(c.Dir, dir), name)
		err := unix.Access(path, unix.X_OK)
		if err != nil && err != unix.EACCES {
			continue
		}
		var info unix.Stat_t
		if unix.Stat(path, &info) != nil || info.Mode&unix.S_IFMT == unix.S_IFDIR {
			continue
		}
		if err == nil {
			return path, nil
		}
		denied = path
	}
	if denied != "" {
		return "", &SpawnError{Doing: "cmd " + strconv.Quote(denied), Err: errors.New("not executable, or not permitted")}
	}
	return "", &SpawnError{Doing: "cmd " + strconv.Quote(name), Err: errNotInPath}
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookupEnv returns the last value of a variable of the child, or the other if it
// has none.
func (c *Command) lookupEnv(key, other string) string {
	for _, env := range [][]string{c.Env, c.Common} {
		for _, entry := range slices.Backward(env) {
			if k, v, ok := strings.Cut(entry, "="); ok && k == key {
				return v
			}
		}
	}
	return other
}

// environment is the room in which the environment of a child is laid out, for one
// after the other. What they have in common is looked through once.
type environment struct {
	common  []string       // as it was given; it is never changed
	base    []string       // what of it counts
	places  map[string]int // where each variable stands in base
	own     map[string]int // where the child's own stand in entries
	entries []string
	block   []byte
	array   []*byte
}

// dedupe keeps the last entry of each variable and drops what is none. The result
// is valid until the next call.
func (e *environment) dedupe(common, env []string) []string {
	if e.own == nil || unsafe.SliceData(e.common) != unsafe.SliceData(common) || len(e.common) != len(common) {
		e.learn(common)
	}
	clear(e.own)
	e.entries = append(e.entries[:0], e.base...)
	for _, entry := range env {
		key, ok := variable(entry)
		if !ok {
			continue
		}
		at, again := e.own[key]
		if !again {
			at, again = e.places[key]
		}
		if again {
			e.entries[at] = ""
		}
		e.own[key] = len(e.entries)
		e.entries = append(e.entries, entry)
	}
	return slices.DeleteFunc(e.entries, func(entry string) bool { return entry == "" })
}

// learn makes common the base of environments.
func (e *environment) learn(common []string) {
	e.common, e.base, e.places, e.own = nil, nil, nil, map[string]int{}
	base := slices.Clone(e.dedupe(nil, common))
	e.common, e.base, e.places = common, base, make(map[string]int, len(base))
	for at, entry := range base {
		key, _ := variable(entry)
		e.places[key] = at
	}
}

// variable returns the name of the variable that an entry is of, if it is of any.
func variable(entry string) (name string, ok bool) {
	name, _, ok = strings.Cut(entry, "=")
	return name, ok && strings.IndexByte(entry, 0) < 0
}

// lay is cStrings, and its result is valid until the next call.
func (e *environment) lay(env []string) []*byte {
	e.block, e.array = layStrings(e.block, e.array, env)
	return e.array
}

func cString(s string) *byte {
	b := make([]byte, len(s)+1)
	copy(b, s)
	return &b[0]
}

// cStrings returns a NULL-terminated array.
func cStrings(list []string) []*byte {
	_, array := layStrings(nil, nil, list)
	return array
}

// layStrings lays strings into one block and a NULL-terminated array, for which it
// takes the given room if that is enough.
func layStrings(block []byte, array []*byte, list []string) ([]byte, []*byte) {
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	block, array = slices.Grow(block[:0], size), slices.Grow(array[:0], len(list)+1)
	for _, s := range list {
		at := len(block)
		block = append(append(block, s...), 0)
		array = append(array, &block[at])
	}
	return block, append(array, nil)
}

// ignoredSignals lists the signals that pm was started to ignore: a shell starts
// a job with & with INT and QUIT ignored, nohup with HUP. It is asked once: pm
// itself ignores none.
var ignoredSignals = sync.OnceValue(func() (list []uintptr) {
	for sig := uintptr(1); sig <= 64; sig++ {
		var action [4]uint64 // struct sigaction of the kernel
		_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
		if errno == 0 && action[0] == sigIgn {
			list = append(list, sig)
		}
	}
	return list
})

const sigIgn = 1 // SIG_IGN

// listenEnv lays out an environment with LISTEN_FDS and a LISTEN_PID whose
// digits the child fills in: nobody knows its pid before.
func listenEnv(env []string, n int) (envv []*byte, pid *[listenDigits]byte) {
	env = slices.DeleteFunc(env, func(e string) bool {
		return strings.HasPrefix(e, "LISTEN_PID=") || strings.HasPrefix(e, "LISTEN_FDS=")
	})
	const name = "LISTEN_PID="
	entry := make([]byte, len(name)+listenDigits+1)
	copy(entry, name)
	envv = cStrings(append(env, "LISTEN_FDS="+strconv.Itoa(n)))
	envv[len(envv)-1] = &entry[0]
	return append(envv, nil), (*[listenDigits]byte)(entry[len(name):])
}

// foregroundSlot returns which of the first three descriptors is a terminal in
// whose foreground pm is, or -1. Only then may a child be put there: taking the
// terminal from the background would steal it from the shell.
func foregroundSlot(c *Command) int {
	for i, f := range []Stdio{c.Stdin, c.Stdout, c.Stderr} {
		if f.Kind == Descriptor && InForeground(f.File) {
			return i
		}
	}
	return -1
}
