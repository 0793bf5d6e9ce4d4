package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A witness is an actor that writes down what becomes of it, so that the tests
// know better than pm. Its files are in the directory $PM_WITNESS, and begin with
// the name of its instance:
//
//	.lock  held as long as it lives: a second one of the same instance sees it
//	.life  "start PID", "double PID", and before it ends by itself "end PID CODE"
//	.out   the lines that it has written to stdout as well, "PID.TIME NUMBER", with
//	       the time at which it began: in a long test pids come again

// pulse is the pause between the lines of a witness.
const pulse = 25 * time.Millisecond

// line is held while a line is written, to both places.
var line sync.Mutex

func witnessFile(kind string) string {
	return filepath.Join(os.Getenv("PM_WITNESS"), os.Getenv("PM_INSTANCE")+kind)
}

// actWitness takes the lock of the instance, and writes lines until the end.
func actWitness(string, []string) error {
	lock, err := syscall.Open(witnessFile(".lock"), syscall.O_RDWR|syscall.O_CREAT|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(err, writeDown("double"))
	}
	if err := writeDown("start"); err != nil {
		return err
	}
	out, err := os.OpenFile(witnessFile(".out"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	begun := time.Now().UnixMilli()
	go func() { // ends with the process
		for n := 1; ; n++ {
			text := fmt.Appendf(nil, "%d.%d %d\n", os.Getpid(), begun, n)
			line.Lock()
			_, _ = out.Write(text)
			_, _ = os.Stdout.Write(text)
			line.Unlock()
			<-time.After(pulse)
		}
	}()
	return nil
}

// writeDown appends a line to the life of the instance.
func writeDown(what string, more ...any) error {
	f, err := os.OpenFile(witnessFile(".life"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(fmt.Sprintln(append([]any{what, os.Getpid()}, more...)...))
	return errors.Join(err, f.Close())
}

// actQuit ends a witness by itself.
func actQuit(value string, _ []string) error {
	code, err := strconv.Atoi(value)
	if err != nil {
		return err
	}
	line.Lock() // for good: the last line is whole
	if err := writeDown("end", code); err != nil {
		return err
	}
	os.Exit(code)
	return nil
}

// actRestless ends a witness by itself, at any time within a second, with any of
// a few codes.
func actRestless(string, []string) error {
	<-time.After(rand.N(time.Second))
	return actQuit(strconv.Itoa(rand.N(5)), nil)
}
