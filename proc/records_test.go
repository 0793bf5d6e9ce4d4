package proc

import (
	"os"
	"path/filepath"
	"testing"

	"pm.example/journal"
)

// The records that the keeper of an earlier release has left, in the first format
// of all, tell a keeper of today which programs run: else an upgrade would lose them.
func TestRecordsOfAnEarlierRelease(t *testing.T) {
	data, err := os.ReadFile("../testdata/state-1/run/keeper")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keeper")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	j, records, err := journal.Open(path, recordsMagic)
	if err != nil {
		t.Fatal(err)
	}
	_ = j.Close()
	tasks, err := decodeRecords(records, "0b007000-0000-4000-8000-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	for id, pid := range map[string]int{
		"deaf.mwywaw6s-1": 4612, "idle.mwywaw6s-11": 7322, "web:0.mwywaw6s-5": 5101, "web:1.mwywaw6s-10": 14357, "web:2.mwywaw6s-13": 8129,
	} {
		task := tasks[id]
		if task == nil {
			t.Errorf("%s is not known", id)
			continue
		}
		delete(tasks, id)
		if task.pid != pid || task.tag == 0 || task.cgroup == "" || task.started.IsZero() || task.inodes[0] == 0 || task.inodes[1] == 0 || task.dead || task.released {
			t.Errorf("%s: %+v", id, task.tree)
		}
	}
	for id, task := range tasks {
		if !task.dead && task.failure == nil {
			t.Errorf("%s still runs, and has ended: %+v", id, task.tree)
		}
	}
	if tasks, err := decodeRecords(records, "another"); len(tasks) > 0 || err != nil {
		t.Errorf("of another boot: %d, %v", len(tasks), err)
	}
}
