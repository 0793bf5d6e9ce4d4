package proc

import (
	"slices"
	"testing"
)

// Of each variable the last entry counts, whether programs have it in common or not.
func TestEnvironment(t *testing.T) {
	common := []string{"A=1", "none", "B=1", "A=2", "C=\x00", "D="}
	other := []string{"B=9"}
	var e environment
	for _, c := range []struct{ common, env, want []string }{
		{nil, nil, nil},
		{nil, []string{"X=1", "X=2"}, []string{"X=2"}},
		{common, nil, []string{"B=1", "A=2", "D="}},
		{common, []string{"B=2", "", "X", "E=1", "B=3"}, []string{"A=2", "D=", "E=1", "B=3"}},
		{common, nil, []string{"B=1", "A=2", "D="}},
		{other, []string{"B=1"}, []string{"B=1"}},
		{common[:1], []string{"B=1"}, []string{"A=1", "B=1"}},
		{nil, []string{"X=1"}, []string{"X=1"}},
	} {
		if got := e.dedupe(c.common, c.env); !slices.Equal(got, c.want) {
			t.Errorf("%q and %q: %q, want %q", c.common, c.env, got, c.want)
		}
	}
}
