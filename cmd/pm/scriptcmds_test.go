package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"pm.example/proc"
)

// commands are the words that scripts have beside those of testscript. Where
// one waits it looks every few milliseconds, and fails the script at the
// deadline with what it saw last.
//
//	exits CODE CMD ARG…           runs it and demands this exit code
//	[!] waitfor socket PATH       somebody answers there
//	[!] waitfor file PATH         it exists
//	[!] waitfor match RE FILE     a line of the file matches; [!] at once: no line does
//	[!] waitfor url URL           answers with a status below 400
//	waitfor output RE CMD ARG…    the command succeeds, and a line of what it prints matches
//	[!] waitfor pid FILE|PID      the process lives
//	until INSTANCE KEY=VALUE…     its status has these values; KEY!=VALUE, KEY~RE, KEY>=N also; a.b reaches into objects
//	! until INSTANCE              the daemon no longer knows it
//	get INSTANCE KEY VAR          puts a value of its status into $VAR; @daemon is the daemon itself
//	count N RE FILE               exactly N lines match
//	signal SIG WORD               signals the background command that has WORD among its arguments
//	kill-pid SIG PID|FILE         signals a process of this script
//	[!] freeze PID|FILE           puts it into state D, where no signal reaches it; [!] lets it go on
//	pidof NAME VAR                puts the pid of the script's only process of that name into $VAR
//	proctree PID FILE             writes the names of the processes from PID down
//	endprocs                      kills all of the script's processes that escaped on purpose
//	freeport VAR                  puts a free TCP port into $VAR
//	httpd LOG [PATH=STATUS…]      a web server, at $HTTPD, that appends its requests to LOG
//	receive NETWORK LOG [ADDRESS] takes lines by tcp, tls, unix, udp or unixgram and appends them to LOG; it is $RECEIVER, at $ADDRESS
//	! receive LOG                 ends that, as if it were killed
//	certificate FILE KEYFILE      writes a certificate for 127.0.0.1, which is its own authority, and its key
//	smtpd LOG                     a mail server, at $SMTPD, that appends its mails to LOG
//	notifyd LOG                   a service manager, at $NOTIFY_SOCKET, that appends what it is told to LOG, a line each
//	systemd                       a service manager for systemctl --user, with the units of packaging/user and of the directory units
//	helptext COMMAND…             prints the command's --help, without the default socket, which depends on the user
//	slowclient PATH               asks the control socket for PATH and never reads the answer
//	converse DIALOGUE CMD ARG…    runs it on a terminal and plays lines like: type TEXT, press C (with Ctrl), see RE, hang-up
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":       cmdExits,
	"waitfor":     cmdWaitfor,
	"until":       cmdUntil,
	"get":         cmdGet,
	"count":       cmdCount,
	"signal":      cmdSignal,
	"kill-pid":    cmdKillPid,
	"pidof":       cmdPidof,
	"proctree":    cmdProctree,
	"endprocs":    cmdEndprocs,
	"freeze":      cmdFreeze,
	"freeport":    cmdFreeport,
	"httpd":       cmdHTTPD,
	"receive":     cmdReceive,
	"certificate": cmdCertificate,
	"smtpd":       cmdSMTPD,
	"notifyd":     cmdNotifyd,
	"systemd":     cmdSystemd,
	"helptext":    cmdHelptext,
	"slowclient":  cmdSlowClient,
	"converse":    cmdConverse,
}

// Whoever waits looks often at first, and the less the longer it takes: what is looked at
// would have less of the machine.
const (
	pollEvery  = 5 * time.Millisecond
	pollAtMost = 100 * time.Millisecond
	patience   = 60 * time.Second // the machine may be busy; nothing waits so long that works
)

// poll looks until it sees what is wanted. seen tells what it saw last.
func poll(ts *testscript.TestScript, what string, look func() (ok bool, seen string)) {
	begun := time.Now()
	for {
		ok, seen := look()
		if ok {
			return
		}
		waited := time.Since(begun)
		if waited > patience {
			ts.Fatalf("%s: not within %s; last seen: %s", what, patience, seen)
		}
		<-time.After(min(max(waited/10, pollEvery), pollAtMost))
	}
}

// usage fails the script unless the number of arguments is right.
func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 2, "exits CODE CMD ARG…")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		if got = exit.ExitCode(); got < 0 {
			ts.Fatalf("%v", err)
		}
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func cmdWaitfor(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) >= 2, "[!] waitfor socket|file|match|url|output|pid …")
	look := map[string]func(*testscript.TestScript, []string) bool{
		"socket": answers, "file": exists, "match": matches, "url": serves, "output": prints, "pid": pidLives,
	}[args[0]]
	usage(ts, look != nil, "[!] waitfor socket|file|match|url|output|pid …")
	poll(ts, "waitfor "+strings.Join(args, " "), func() (bool, string) {
		return look(ts, args[1:]) != neg, strconv.FormatBool(neg)
	})
}

func answers(ts *testscript.TestScript, args []string) bool {
	c, err := net.Dial("unix", ts.MkAbs(args[0]))
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func exists(ts *testscript.TestScript, args []string) bool {
	_, err := os.Lstat(ts.MkAbs(args[0]))
	return err == nil
}

func matches(ts *testscript.TestScript, args []string) bool {
	usage(ts, len(args) == 2, "waitfor match RE FILE")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	data, _ := os.ReadFile(ts.MkAbs(args[1]))
	return re.Match(data)
}

func serves(_ *testscript.TestScript, args []string) bool {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(args[0])
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode < 400
}

func prints(ts *testscript.TestScript, args []string) bool {
	usage(ts, len(args) >= 2, "waitfor output RE CMD ARG…")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	return ts.Exec(args[1], args[2:]...) == nil && re.MatchString(ts.ReadFile("stdout"))
}

func pidLives(ts *testscript.TestScript, args []string) bool {
	pid, err := pidIn(ts, args[0])
	return err == nil && living(pid)
}

// pidIn reads a pid from a word or, if that is no number, from a file.
func pidIn(ts *testscript.TestScript, word string) (int, error) {
	if pid, err := strconv.Atoi(word); err == nil {
		return pid, nil
	}
	data, err := os.ReadFile(ts.MkAbs(word))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// statusOf asks the daemon for one instance, as the socket tells it.
func statusOf(ts *testscript.TestScript, name string) (map[string]any, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", ts.Getenv("PM_SOCKET"))
		},
	}}
	query := "?sel=" + url.QueryEscape(name)
	if name == "@daemon" {
		query = ""
	}
	resp, err := client.Get("http://pm/v1/status" + query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Daemon    map[string]any
		Instances []map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if name == "@daemon" {
		return answer.Daemon, nil
	}
	switch len(answer.Instances) {
	case 0:
		return nil, errNoInstance
	case 1:
		return answer.Instances[0], nil
	default:
		return nil, fmt.Errorf("%s is not one instance but %d", name, len(answer.Instances))
	}
}

var errNoInstance = errors.New("no such instance")

// value reads a key such as task.state; what is not there is "".
func value(object map[string]any, key string) string {
	first, rest, nested := strings.Cut(key, ".")
	switch v := object[first].(type) {
	case nil:
		return ""
	case map[string]any:
		if nested {
			return value(v, rest)
		}
		return fmt.Sprint(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

var comparison = regexp.MustCompile(`^([a-z_.]+)(!=|>=|=|~)(?s)(.*)$`)

// holds decides one KEY=VALUE.
func holds(ts *testscript.TestScript, object map[string]any, text string) bool {
	m := comparison.FindStringSubmatch(text)
	if m == nil {
		ts.Fatalf("not a comparison: %s", text)
	}
	got, want := value(object, m[1]), m[3]
	switch m[2] {
	case "!=":
		return got != want
	case "~":
		return regexp.MustCompile(want).MatchString(got)
	case ">=":
		a, err1 := strconv.ParseFloat(got, 64)
		b, err2 := strconv.ParseFloat(want, 64)
		return err1 == nil && err2 == nil && a >= b
	default:
		return got == want
	}
}

func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg && len(args) == 1 || !neg && len(args) >= 2, "until INSTANCE KEY=VALUE…, or ! until INSTANCE")
	if neg {
		poll(ts, "! until "+args[0], func() (bool, string) {
			_, err := statusOf(ts, args[0])
			return errors.Is(err, errNoInstance), "it is known, or " + fmt.Sprint(err)
		})
		return
	}
	poll(ts, "until "+strings.Join(args, " "), func() (bool, string) {
		object, err := statusOf(ts, args[0])
		if err != nil {
			return false, err.Error()
		}
		for _, text := range args[1:] {
			if !holds(ts, object, text) {
				return false, fmt.Sprint(object)
			}
		}
		return true, ""
	})
}

func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "get INSTANCE KEY VAR")
	object, err := statusOf(ts, args[0])
	ts.Check(err)
	got := value(object, args[1])
	if got == "" {
		ts.Fatalf("%s has no %s: %v", args[0], args[1], object)
	}
	ts.Setenv(args[2], got)
}

func cmdCount(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "count N RE FILE")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	text := ts.ReadFile(args[2])
	if got := len(re.FindAllString(text, -1)); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%d matches of %s in %s, want %s:\n%s", got, args[1], args[2], args[0], text)
	}
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "signal SIG WORD")
	sig := signalWord(ts, args[0])
	for _, cmd := range ts.BackgroundCmds() {
		if slices.Contains(cmd.Args, args[1]) {
			ts.Check(cmd.Process.Signal(sig))
			return
		}
	}
	ts.Fatalf("no background command with %q among its arguments", args[1])
}

func signalWord(ts *testscript.TestScript, name string) syscall.Signal {
	sig, err := proc.ParseSignal(name)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	return sig
}

func cmdKillPid(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "kill-pid SIG PID|FILE")
	pid, err := pidIn(ts, args[1])
	ts.Check(err)
	if pid <= 1 {
		ts.Fatalf("not a process of this script: %d", pid)
	}
	ts.Check(syscall.Kill(pid, signalWord(ts, args[0])))
}

func cmdPidof(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "pidof NAME VAR")
	var found []int
	for _, pid := range processesOf(ts.Getenv("WORK")) {
		if st, ok := readStat(pid); ok && st.comm == args[0] {
			found = append(found, pid)
		}
	}
	if len(found) != 1 {
		ts.Fatalf("%d processes called %s: %v", len(found), args[0], found)
	}
	ts.Setenv(args[1], strconv.Itoa(found[0]))
}

func cmdProctree(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "proctree PID FILE")
	pid, err := pidIn(ts, args[0])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(tree(pid)), 0o666))
}

func cmdEndprocs(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 0, "endprocs")
	dir := ts.Getenv("WORK")
	killAll(func() []int { return processesOf(dir) })
}

// ports counts those that scripts have been given. They lie below the ones that the
// kernel gives to whoever asks for any, so no other script gets them.
var ports atomic.Int32

func cmdFreeport(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "freeport VAR")
	const first, last = 20_000, 32_000
	for range last - first {
		port := strconv.Itoa(first + (os.Getpid()+int(ports.Add(1)))%(last-first))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue // somebody else has it
		}
		ts.Check(l.Close())
		ts.Setenv(args[0], port)
		return
	}
	ts.Fatalf("no port is free")
}

func cmdHTTPD(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 1, "httpd LOG [PATH=STATUS…]")
	log, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	ts.Check(err)
	status := map[string]int{}
	for _, arg := range args[1:] {
		path, code, _ := strings.Cut(arg, "=")
		status[path], err = strconv.Atoi(code)
		ts.Check(err)
	}
	var mu sync.Mutex // guards log: one request at a time
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintln(log, r.Method, r.URL.RequestURI())
		if code := status[r.URL.Path]; code != 0 {
			w.WriteHeader(code)
		}
	}))
	ts.Defer(func() { server.Close(); _ = log.Close() })
	ts.Setenv("HTTPD", server.URL)
}

// mailServer is a program for Debian's aiosmtpd: it prints its port, and appends
// the mails it gets to the file of its argument. It ends when its stdin does.
const mailServer = `
import asyncio, sys
from aiosmtpd.smtp import SMTP

class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(sys.argv[1], "ab") as log:
            log.write(("MAIL from " + envelope.mail_from + " to " + ", ".join(envelope.rcpt_tos) + "\n").encode())
            log.write(envelope.content.replace(b"\r\n", b"\n"))
            log.write(b"END OF MAIL\n")
        return "250 OK"

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), loop=loop), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    await ended.wait()

asyncio.run(main())
`

// smtpPython is a Python that has aiosmtpd, or "". Debian's own comes before
// what else the PATH has.
var smtpPython = sync.OnceValue(func() string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import aiosmtpd").Run() == nil {
			return python
		}
	}
	return ""
})

func cmdSMTPD(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "smtpd LOG")
	cmd := exec.Command(smtpPython(), "-c", mailServer, ts.MkAbs(args[0]))
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // open until Wait, or until this process ends
	ts.Check(err)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	port, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	ts.Setenv("SMTPD", "127.0.0.1:"+strings.TrimSpace(port))
}

func cmdNotifyd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "notifyd LOG")
	path := ts.Getenv("PM_SOCKET") + ".notify"
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	log, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	go func() { // ends when the socket is closed
		defer func() { _ = log.Close() }()
		buf := make([]byte, 4096)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(log, "%s\n", bytes.TrimSpace(buf[:n]))
		}
	}()
	ts.Defer(func() { _ = conn.Close() })
	ts.Setenv("NOTIFY_SOCKET", path)
}

var defaultSocket = regexp.MustCompile(`(default: \$PM_SOCKET, else )[^)\n]*`)

func cmdHelptext(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg, "helptext COMMAND…")
	ts.Check(ts.Exec("pm", append(args, "--help")...))
	text := ts.ReadFile("stdout")
	_, err := fmt.Fprint(ts.Stdout(), defaultSocket.ReplaceAllString(text, "$1…"))
	ts.Check(err)
}

func cmdSlowClient(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "slowclient PATH")
	c, err := net.Dial("unix", ts.Getenv("PM_SOCKET"))
	ts.Check(err)
	ts.Defer(func() { _ = c.Close() })
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: pm\r\n\r\n", filepath.Clean(args[0]))
	ts.Check(err)
}
