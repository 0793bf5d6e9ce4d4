package subcmd

import (
	"context"
	"strings"

	"github.com/urfave/cli/v2"

	"pm.example/socket"
)

// reloadOptions are the flags of pm reload.
type reloadOptions struct {
	dryRun bool
	all    bool
	json   bool
}

func reloadCommand(e *env) *cli.Command {
	var o reloadOptions
	return &cli.Command{
		Name: "reload", Aliases: []string{"update"}, Usage: "read the config file again",
		Description: "Brings the config file into force: all of it, or nothing if it has a fault. Only\nwhat changed is touched, and every action is told with its reasons.\n\nExamples:\n  pm reload --dry-run\n  pm reload\n\nExit status: 0 done; 2 the file has a fault, nothing was changed; 5 the daemon cannot\nbe reached.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Destination: &o.dryRun, Usage: "only tell what would be done"},
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Destination: &o.all, Usage: "also list what stays as it is"},
			&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("pm reload takes no arguments: the file is read as a whole")
			}
			return runReload(c.Context, e, o)
		},
	}
}

func rereadCommand(e *env) *cli.Command {
	var o reloadOptions
	return &cli.Command{
		Name: "reread", Hidden: true, Usage: "the same as reload --dry-run",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Destination: &o.json, Usage: "print a JSON document"}, socketFlag(&e.socketCommand)},
		Action: withoutArgs(func(c *cli.Context) error {
			return runReload(c.Context, e, reloadOptions{dryRun: true, json: o.json})
		}),
	}
}

// runReload asks for a reload and prints its actions.
func runReload(ctx context.Context, e *env, o reloadOptions) error {
	client := e.client()
	defer client.Close()
	plan, err := client.Reload(ctx, socket.ReloadRequest{DryRun: o.dryRun})
	if err != nil {
		return err
	}
	for _, note := range plan.Notes {
		tell(e.stderr, note)
	}
	if o.json {
		return writeJSON(e.stdout, plan)
	}
	var rows [][]string
	for _, a := range plan.Actions {
		if a.Action != "keep" || o.all || len(a.Reasons) > 0 {
			rows = append(rows, []string{a.Action, a.Instance, strings.Join(a.Reasons, "; ")})
		}
	}
	if len(rows) == 0 && len(plan.Notes) == 0 {
		tell(e.stderr, "nothing changed")
	}
	if len(rows) == 0 {
		return nil
	}
	return writeTable(e.stdout, rows, terminalWidth(e.stdout))
}
