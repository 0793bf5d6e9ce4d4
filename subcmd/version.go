package subcmd

import (
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

func versionCommand(e *env) *cli.Command {
	var asJSON bool
	return &cli.Command{
		Name: "version", Usage: "print pm's version",
		Description: "Prints the version of this binary. The daemon's own is in: pm status --json.\n\nExit status: 0.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print a JSON document"}},
		Action:      withoutArgs(func(*cli.Context) error { return runVersion(e, asJSON) }),
	}
}

// versionFlag is what people try before they know of pm version.
func versionFlag(destination *bool) cli.Flag {
	return &cli.BoolFlag{Name: "version", Destination: destination, DisableDefaultText: true, Usage: "print pm's version"}
}

// runVersion prints the version of this binary.
func runVersion(e *env, asJSON bool) error {
	if asJSON {
		return writeJSON(e.stdout, socket.Version{Schema: socket.Schema, Version: version(), API: "v1"})
	}
	_, err := fmt.Fprintf(e.stdout, "pm %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	return err
}
