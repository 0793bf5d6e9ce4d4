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
		Name: "version", Usage: "print pm's version", ArgsUsage: " ",
		Description: "Prints the version of this binary. The daemon's own is in: pm status --json.\n\nExit status: 0.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print a JSON document"}},
		Action: func(*cli.Context) error {
			if asJSON {
				return writeJSON(e.stdout, socket.Version{Schema: socket.Schema, Version: version(), API: "v1"})
			}
			_, err := fmt.Fprintf(e.stdout, "pm %s %s/%s %s\n", version(), runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
