package socket

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
)

// What is written comes out whole, however small the spool.
func TestSpoolPasses(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789"), 1000)
	s := newSpool(16)
	var writer sync.WaitGroup
	writer.Go(func() { // ends when all is written
		for _, b := range want {
			s.Write([]byte{b})
		}
		s.close(nil)
	})
	got, err := io.ReadAll(s)
	writer.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes, %v", len(got), len(want), err)
	}
}

// A full spool holds its writer until it is read from or closed; what it holds
// can still be read then.
func TestSpoolFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSpool(4)
		s.Write([]byte("four"))
		var wrote error
		done := false
		go func() { // ends with close
			_, wrote = s.Write([]byte("more"))
			done = true
		}()
		synctest.Wait()
		if done {
			t.Error("a full spool takes more")
		}
		broken := errors.New("broken")
		s.close(broken)
		synctest.Wait()
		if !done || wrote == nil {
			t.Errorf("after close: done %v, %v", done, wrote)
		}
		if got, err := io.ReadAll(s); string(got) != "four" || err != broken {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
