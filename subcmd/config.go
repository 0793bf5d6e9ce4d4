package subcmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"pm.example/config"
	"pm.example/socket"
)

func configCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "config", Usage: "check, show and convert config files", ArgsUsage: "COMMAND",
		Subcommands: []*cli.Command{configCheckCommand(e), configConvertCommand(e), configSchemaCommand(e), configShowCommand(e)},
	}
}

func configCheckCommand(e *env) *cli.Command {
	var syntaxOnly, asJSON bool
	return &cli.Command{
		Name: "check", Usage: "find all faults of a config file", ArgsUsage: "[FILE]",
		Description: "Reads FILE (- for stdin; default: ./pm.toml, then /etc/pm/pm.toml) and tells every\nfault with its place. It also looks whether commands, directories and logs are\nthere, unless --syntax.\n\nExit status: 0 no faults; 2 faults.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "syntax", Destination: &syntaxOnly, Usage: "do not look at this machine"},
			&cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print a JSON document"},
		},
		Action: func(c *cli.Context) error { return runConfigCheck(e, c.Args().Slice(), syntaxOnly, asJSON) },
	}
}

// configReport is the --json form of config check.
type configReport struct {
	Schema   int              `json:"schema"`
	File     string           `json:"file"`
	Programs int              `json:"programs"`
	Problems []config.Problem `json:"problems"`
	Warnings []config.Problem `json:"warnings"`
}

// runConfigCheck tells the faults of a file.
func runConfigCheck(e *env, args []string, syntaxOnly, asJSON bool) error {
	path, file, warnings, err := loadConfig(e, args)
	var faults *config.Errors
	if err != nil && !errors.As(err, &faults) {
		return err
	}
	report := configReport{Schema: socket.Schema, File: path, Problems: []config.Problem{}, Warnings: append([]config.Problem{}, warnings...)}
	if faults != nil {
		report.Problems = faults.Problems
	}
	if file != nil {
		report.Programs = len(file.Programs)
		if !syntaxOnly {
			report.Problems = append(report.Problems, file.CheckMachine()...)
		}
	}
	if asJSON {
		if err := writeJSON(e.stdout, report); err != nil {
			return err
		}
	} else {
		report.tell(e)
	}
	if len(report.Problems) > 0 {
		return exitStatus(socket.CodeUsage)
	}
	return nil
}

func (r configReport) tell(e *env) {
	for _, p := range r.Problems {
		tell(e.stderr, p.String())
	}
	for _, p := range r.Warnings {
		tell(e.stderr, "warning: "+p.String())
	}
	if len(r.Problems) == 0 {
		_, _ = fmt.Fprintf(e.stdout, "%s: %s, no faults\n", r.File, plural(r.Programs, "program"))
	}
}

// loadConfig reads the file that args name: - is stdin, none is the default.
func loadConfig(e *env, args []string) (path string, file *config.File, warnings []config.Problem, err error) {
	if len(args) > 1 {
		return "", nil, nil, usagef("one file at a time, got %d: %s", len(args), strings.Join(args, " "))
	}
	if len(args) == 1 {
		path = args[0]
	}
	if path == "-" {
		data, err := readStdin(e)
		if err != nil {
			return path, nil, nil, err
		}
		path = "stdin"
		file, warnings, err = config.Parse(path, data, os.LookupEnv)
		return path, file, warnings, err
	}
	if path, err = config.Find(path); err != nil {
		return path, nil, nil, usageError(err)
	}
	file, warnings, err = config.Load(path, os.LookupEnv)
	if err != nil {
		err = usageError(err)
	}
	return path, file, warnings, err
}

// maxStdin bounds a config that comes through stdin.
const maxStdin = 16 << 20

func readStdin(e *env) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(e.stdin, maxStdin+1))
	if err == nil && len(data) > maxStdin {
		err = usagef("stdin: larger than %d MiB", maxStdin>>20)
	}
	return data, err
}

func configShowCommand(e *env) *cli.Command {
	var asJSON, running bool
	return &cli.Command{
		Name: "show", Usage: "print the effective config, with defaults filled in", ArgsUsage: "[FILE]",
		Description: "Prints FILE as pm understands it, as TOML or JSON. With --running, the config that\nis in force in the daemon, as JSON.\n\nExit status: 0 done; 2 the file has faults; 5 the daemon cannot be reached.",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Destination: &asJSON, Usage: "print a JSON document"},
			&cli.BoolFlag{Name: "running", Destination: &running, Usage: "ask the daemon"},
			socketFlag(&e.socketCommand),
		},
		Action: func(c *cli.Context) error {
			if running && c.Args().Present() {
				return usagef("pm config show takes a file or --running, not both")
			}
			if running {
				return runConfigRunning(c, e)
			}
			return runConfigShow(e, c.Args().Slice(), asJSON)
		},
	}
}

func runConfigRunning(c *cli.Context, e *env) error {
	client := e.client()
	defer client.Close()
	document, err := client.Config(c.Context)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n", document)
	return err
}

// runConfigShow prints a file as pm understands it.
func runConfigShow(e *env, args []string, asJSON bool) error {
	_, file, warnings, err := loadConfig(e, args)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		tell(e.stderr, "warning: "+w.String())
	}
	encode := file.TOML
	if asJSON {
		encode = file.JSON
	}
	data, err := encode()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(e.stdout, "%s\n", strings.TrimRight(string(data), "\n"))
	return err
}

func configConvertCommand(e *env) *cli.Command {
	var format string
	return &cli.Command{
		Name: "convert", Usage: "turn another program's config into pm's TOML", ArgsUsage: "FILE",
		Description: "Reads taskmaster's YAML, supervisord.conf or a Procfile (- for stdin) and prints\nTOML. What cannot be carried over is told as a warning with its line.\n\nExample:\n  pm config convert /etc/supervisor/supervisord.conf >pm.toml\n\nExit status: 0 done; 2 FILE has faults.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Destination: &format, Usage: "FILE is `FORMAT`: " + strings.Join(config.Formats(), ", ") + " (default: by its name and content)"},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usagef("pm config convert takes one file")
			}
			return runConfigConvert(e, c.Args().First(), format)
		},
	}
}

// runConfigConvert prints another program's config as TOML.
func runConfigConvert(e *env, path, format string) error {
	var (
		data []byte
		err  error
	)
	if path == "-" {
		data, err = readStdin(e)
	} else {
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return usagef("cannot read %s: %v", path, reason(err))
	}
	text, warnings, err := config.Convert(path, data, format)
	for _, w := range warnings {
		tell(e.stderr, "warning: "+w.String())
	}
	if err != nil {
		return usageError(err)
	}
	_, err = e.stdout.Write(text)
	return err
}

func configSchemaCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON schema of config files",
		Description: "Prints a JSON schema, with which editors complete and check config files.\n\nExit status: 0.",
		Action: withoutArgs(func(*cli.Context) error {
			_, err := fmt.Fprintf(e.stdout, "%s\n", config.JSONSchema())
			return err
		}),
	}
}
