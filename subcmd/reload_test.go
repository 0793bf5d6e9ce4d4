package subcmd

import (
	"encoding/json"
	"strings"
	"testing"

	"pm.example/socket"
)

func TestReload(t *testing.T) {
	plan := socket.Plan{Schema: socket.Schema, Actions: []socket.Action{
		{Instance: "db", Action: "keep", Reasons: []string{}},
		{Instance: "new", Action: "start", Reasons: []string{"new in the config"}},
		{Instance: "web:0", Action: "respawn", Reasons: []string{"cmd changed", "env changed"}},
		{Instance: "off", Action: "keep", Reasons: []string{"stopped by hand"}},
	}}
	const all = `start    new    new in the config
respawn  web:0  cmd changed; env changed
keep     off    stopped by hand
`
	dry := false
	p := &puppet{plan: func(dryRun bool) (socket.Plan, error) { dry = dryRun; return plan, nil }}
	path, _ := p.on(t)
	for _, test := range []struct {
		args           string
		dry            bool
		stdout, stderr string
	}{
		{"reload", false, all, ""},
		{"update", false, all, ""},
		{"reload --dry-run", true, all, ""},
		{"reload -n", true, all, ""},
		{"reread", true, all, ""},
		{"reload --all", false, "keep     db\n" + all, ""},
	} {
		pmOn(t, path, strings.Fields(test.args)...).is(t, 0, test.stdout, test.stderr)
		if dry != test.dry {
			t.Errorf("pm %s: dry run %t", test.args, dry)
		}
	}
	document, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	pmOn(t, path, "reread", "--json").is(t, 0, string(document)+"\n", "")

	plan = socket.Plan{Schema: socket.Schema, Actions: plan.Actions[:1], Notes: []string{"socket: needs a new daemon"}}
	pmOn(t, path, "reload").is(t, 0, "", "pm: socket: needs a new daemon\n")
	p.plan = func(bool) (socket.Plan, error) {
		return plan, &socket.Problem{Message: "pm.toml:1:1: one\npm.toml:2:1: two", Code: socket.CodeUsage}
	}
	pmOn(t, path, "reload").is(t, socket.CodeUsage, "", "pm: pm.toml:1:1: one\npm: pm.toml:2:1: two\n")
}
