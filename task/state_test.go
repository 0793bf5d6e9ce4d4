package task

import "testing"

func TestTableIsComplete(t *testing.T) {
	seen := map[State]bool{}
	for _, row := range Table() {
		if seen[row.State] {
			t.Errorf("%s stands twice in the table", row.State)
		}
		seen[row.State] = true
		if row.Means == "" || row.Replace == "" {
			t.Errorf("%s has no meaning or no consequence", row.State)
		}
		if row.Category == Terminal != row.Expunge {
			t.Errorf("%s: a task is expunged exactly when it has ended", row.State)
		}
		for _, next := range row.Next {
			if _, ok := Lookup(next); !ok {
				t.Errorf("%s may become %s, which is no state", row.State, next)
			}
		}
	}
	if len(seen) != 13 {
		t.Errorf("%d states, want 13", len(seen))
	}
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		from, to State
		legal    bool
	}{
		{Staging, Starting, true},
		{Staging, Dropped, true},
		{Starting, Running, true},
		{Running, Failed, true},
		{Killing, Killed, true},
		{Running, Starting, false},
		{Killed, Running, false},
		{Finished, Staging, false},
		{Unknown, Running, true}, // Mesos: the operator or the master was mistaken
		{"TASK_NAPPING", Running, false},
		{Running, "TASK_NAPPING", false},
	} {
		if err := Next(c.from, c.to); (err == nil) != c.legal {
			t.Errorf("Next(%s, %s) = %v, want legal %v", c.from, c.to, err, c.legal)
		}
	}
}
