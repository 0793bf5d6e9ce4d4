// Command pm runs programs and keeps them running. See package subcmd for what
// it can do.
package main

import (
	"context"
	"os"
	"runtime"

	"pm.example/subcmd"
)

func main() {
	// The main thread starts no processes: package proc tells orphans from
	// programs by the thread that they are children of.
	runtime.LockOSThread()
	status := make(chan int)
	go func() { // ends with the command
		status <- subcmd.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Getenv)
	}()
	os.Exit(<-status)
}
