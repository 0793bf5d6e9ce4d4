// Command actor is what pm runs in tests: a program whose arguments are its behaviour,
// done one after the other. After the last it waits until a signal ends it. It starts
// fast, whatever the tests are built with.
//
//	exit=N             ends with this code
//	signal=NAME        dies of this signal; crash is signal=SEGV
//	after=DURATION     waits
//	ignore=NAME        ignores the signal
//	on=NAME:ACT;ACT…   does this whenever the signal comes, for example on=TERM:print=bye;exit=0
//
//	print=TEXT         writes a line to stdout
//	error=TEXT         writes a line to stderr
//	write=TEXT         writes to stdout without a newline
//	lines=N            writes "line 1" … "line N" to stdout
//	copy               copies stdin to stdout
//	print-env=NAME     prints NAME=value, or "no NAME"
//	print-umask, print-cwd, print-ids, print-nice, print-oom
//
//	name=NAME          becomes NAME in process lists (pidof, kill.exclude)
//	pidfile=PATH       writes its pid
//	append=PATH        appends the line "start"
//	fail-until=N:PATH  appends such a line, and ends with 1 unless it is at least the Nth
//
//	fork=N             starts N actors that only wait
//	fork=ACT,ACT…      starts an actor that does this
//	setsid=ACT,ACT…    … in a session of its own
//	escape=ACT,ACT…    … in a session of its own, with an empty environment and without its parent
//	flee               goes on as ever new processes that look like the last one's orphan
//	clearenv           goes on without any environment
//	untag              lowers the limit by which pm knows its processes
//	headless           ends its main thread, and goes on in others
//
//	listen=ADDR        serves HTTP at a host:port or a socket's path, answering "here"
//
//	witness            writes down what becomes of it (see witness.go)
//	quit=N             ends such a witness with this code, restless at any time with any
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// self is the path of this program, which a process without its main thread cannot ask for.
var self, _ = os.Executable()

func main() {
	runtime.LockOSThread() // headless wants to be on the main thread
	for n, arg := range os.Args[1:] {
		act(arg, os.Args[n+2:])
	}
	linger()
}

// act does one thing; rest is what is to be done after it.
func act(arg string, rest []string) {
	verb, value, _ := strings.Cut(arg, "=")
	do, ok := acts()[verb]
	if !ok {
		fail(fmt.Errorf("unknown argument %q", arg))
	}
	if err := do(value, rest); err != nil {
		fail(fmt.Errorf("%s: %w", arg, err))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "actor:", err)
	os.Exit(99)
}

// acts are what actor can do. It is a function since act and the table refer to
// each other.
func acts() map[string]func(value string, rest []string) error {
	return map[string]func(string, []string) error{
		"exit":     actExit,
		"signal":   func(v string, _ []string) error { return dieOf(signalNumber(v)) },
		"crash":    func(string, []string) error { return dieOf(unix.SIGSEGV) },
		"after":    actAfter,
		"ignore":   func(v string, _ []string) error { signal.Ignore(signalNumber(v)); return nil },
		"on":       actOn,
		"print":    func(v string, _ []string) error { _, err := fmt.Println(v); return err },
		"error":    func(v string, _ []string) error { _, err := fmt.Fprintln(os.Stderr, v); return err },
		"write":    func(v string, _ []string) error { _, err := fmt.Print(v); return err },
		"lines":    actLines,
		"copy":     func(string, []string) error { _, err := io.Copy(os.Stdout, os.Stdin); return err },
		"name":     func(v string, _ []string) error { return os.WriteFile("/proc/self/comm", []byte(v), 0) },
		"pidfile":  func(v string, _ []string) error { return writeWhole(v, strconv.Itoa(os.Getpid())+"\n") },
		"append":   func(v string, _ []string) error { _, err := appendStart(v); return err },
		"fork":     actFork,
		"setsid":   func(v string, _ []string) error { return startActor(words(v), os.Environ(), true) },
		"escape":   actEscape,
		"flee":     actFlee,
		"clearenv": actClearenv,
		"untag":    actUntag,
		"headless": actHeadless,
		"listen":   actListen,

		"witness":  actWitness,
		"quit":     actQuit,
		"restless": actRestless,

		"fail-until":  actFailUntil,
		"print-env":   actPrintEnv,
		"print-umask": actPrintUmask,
		"print-cwd":   actPrintCwd,
		"print-ids":   actPrintIDs,
		"print-nice":  actPrintNice,
		"print-oom":   actPrintOOM,
	}
}

func actExit(value string, _ []string) error {
	code, err := strconv.Atoi(value)
	if err == nil {
		os.Exit(code)
	}
	return err
}

func words(acts string) []string {
	if acts == "" {
		return nil
	}
	return strings.Split(acts, ",")
}

// linger waits for a signal that ends a program, and dies of it: a Go program
// would ignore most of them.
func linger() {
	c := make(chan os.Signal, 1)
	var ends []os.Signal
	for _, s := range []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM} {
		if !handled(s) && !signal.Ignored(s) {
			ends = append(ends, s)
		}
	}
	if len(ends) > 0 {
		signal.Notify(c, ends...)
	}
	_ = dieOf((<-c).(syscall.Signal))
}

// dieOf gives the signal its default action, which the Go runtime has taken
// over, and sends it.
func dieOf(sig syscall.Signal) error {
	var action [4]uintptr // struct sigaction: SIG_DFL, no flags, no mask
	// It fails only for KILL and STOP, whose action is always the default.
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	_ = unix.Kill(os.Getpid(), sig)
	select {}
}

// signalNumber knows TERM, and RTMIN+3, and RTMAX-1.
func signalNumber(name string) syscall.Signal {
	if text, ok := strings.CutPrefix(name, "RTM"); ok {
		for prefix, first := range map[string]int{"IN": 34, "AX": 64} { // signal(7); glibc keeps two for itself
			if offset, err := strconv.Atoi(strings.TrimPrefix(text, prefix)); err == nil {
				return syscall.Signal(first + offset)
			}
		}
	}
	sig := unix.SignalNum("SIG" + name)
	if sig == 0 {
		fail(fmt.Errorf("unknown signal %q", name))
	}
	return sig
}

func actAfter(value string, _ []string) error {
	d, err := time.ParseDuration(value)
	if err == nil {
		<-time.After(d)
	}
	return err
}

var handlers sync.Map // of signals that an on= has taken

func handled(s os.Signal) bool { _, ok := handlers.Load(s); return ok }

func actOn(value string, _ []string) error {
	name, list, _ := strings.Cut(value, ":")
	c := make(chan os.Signal, 16)
	sig := signalNumber(name)
	handlers.Store(os.Signal(sig), true)
	signal.Notify(c, sig)
	go func() { // ends with the process
		for range c {
			for a := range strings.SplitSeq(list, ";") {
				act(a, nil)
			}
		}
	}()
	return nil
}

func actLines(value string, _ []string) error {
	n, err := strconv.Atoi(value)
	for i := range n {
		fmt.Printf("line %d\n", i+1)
	}
	return err
}

// writeWhole writes a file so that nobody sees half of it.
func writeWhole(path, text string) error {
	if err := os.WriteFile(path+".new", []byte(text), 0o666); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// appendStart appends a line and returns how many there are.
func appendStart(path string) (int, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o666)
	if err != nil {
		return 0, err
	}
	_, err = f.WriteString("start\n")
	data, readErr := os.ReadFile(path)
	return strings.Count(string(data), "\n"), errors.Join(err, f.Close(), readErr)
}

func actFailUntil(value string, _ []string) error {
	number, path, _ := strings.Cut(value, ":")
	wanted, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	n, err := appendStart(path)
	if err == nil && n < wanted {
		os.Exit(1)
	}
	return err
}

func actFork(value string, _ []string) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return startActor(words(value), os.Environ(), false)
	}
	for range n {
		if err := startActor(nil, os.Environ(), false); err != nil {
			return err
		}
	}
	return nil
}

// startActor starts another actor, and reaps it whenever it ends.
func startActor(args, env []string, session bool) error {
	cmd := exec.Command(self, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the child, or the process
	return nil
}

// actEscape starts a process in between, which starts the actor and ends.
func actEscape(value string, _ []string) error {
	between := exec.Command(self, "setsid="+value, "exit=0")
	between.Env, between.Stdout, between.Stderr = []string{}, os.Stdout, os.Stderr
	return between.Run()
}

func actFlee(string, []string) error {
	<-time.After(5 * time.Millisecond)
	if err := startActor([]string{"flee"}, []string{}, true); err != nil {
		return err
	}
	os.Exit(0)
	return nil
}

func actClearenv(_ string, rest []string) error {
	return syscall.Exec(self, append([]string{"actor"}, rest...), nil)
}

func actUntag(string, []string) error {
	low := unix.Rlimit{Cur: 1000, Max: 1000}
	return unix.Prlimit(0, unix.RLIMIT_RTTIME, &low, nil)
}

func actHeadless(_ string, rest []string) error {
	if unix.Gettid() != os.Getpid() { // main came to another thread before it was locked
		return syscall.Exec(self, append([]string{"actor", "headless"}, rest...), os.Environ())
	}
	go func() { // ends with the process
		for n, arg := range rest {
			act(arg, rest[n+1:])
		}
		linger()
	}()
	_, _, errno := syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

func actListen(addr string, _ []string) error {
	network := "tcp"
	if filepath.IsAbs(addr) {
		network = "unix"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	here := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here\n") })
	go func() { _ = http.Serve(l, here) }() // ends with the process
	return nil
}

func actPrintEnv(name string, _ []string) error {
	value, ok := os.LookupEnv(name)
	if !ok {
		_, err := fmt.Println("no", name)
		return err
	}
	_, err := fmt.Println(name + "=" + value)
	return err
}

func actPrintUmask(string, []string) error {
	_, err := fmt.Printf("umask %03o\n", unix.Umask(0))
	return err
}

func actPrintCwd(string, []string) error {
	dir, err := os.Readlink("/proc/self/cwd")
	return errors.Join(err, printed("cwd", dir))
}

func actPrintIDs(string, []string) error {
	groups, err := os.Getgroups()
	return errors.Join(err, printed("uid", os.Getuid(), "gid", os.Getgid(), "groups", groups))
}

func actPrintNice(string, []string) error {
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return errors.Join(err, printed("nice", 20-n)) // the bare system call returns 20-nice
}

func actPrintOOM(string, []string) error {
	data, err := os.ReadFile("/proc/self/oom_score_adj")
	return errors.Join(err, printed("oom_score_adj", strings.TrimSpace(string(data))))
}

func printed(parts ...any) error {
	_, err := fmt.Println(parts...)
	return err
}
