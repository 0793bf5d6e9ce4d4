// Command pm runs programs and keeps them running. See package subcmd for what
// it can do.
package main

import (
	"context"
	"os"

	"pm.example/subcmd"
)

func main() {
	os.Exit(subcmd.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}
