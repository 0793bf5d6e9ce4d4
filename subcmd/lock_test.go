package subcmd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pm.example/proc"
)

// Who was stopped when the keeper died keeps nobody from taking over: neither the worker,
// nor one that has just become the keeper and has not even its name yet.
func TestLockOfAStoppedHeir(t *testing.T) {
	for _, name := range []string{workerName, heirName} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lock, err := lockStateDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			heir := exec.Command("sh", "-c", "printf "+name+" >/proc/$$/comm; echo; kill -STOP $$")
			heir.ExtraFiles = []*os.File{lock}
			said, err := heir.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := heir.Start(); err != nil {
				t.Fatal(err)
			}
			_, _ = said.Read(make([]byte, 1))
			id, err := proc.Identify(heir.Process.Pid)
			if err != nil {
				t.Fatal(err)
			}
			noKeeper := proc.Identity{PID: id.PID, Start: id.Start + 1}
			if _, err := lock.WriteAt(fmt.Appendf(nil, holderForm, noKeeper.PID, noKeeper.Start, id.PID, id.Start), 0); err != nil {
				t.Fatal(err)
			}
			_ = lock.Close()
			next, err := lockStateDir(dir)
			if err != nil {
				t.Errorf("%s keeps %s: %v", name, filepath.Base(dir), err)
				_ = heir.Process.Kill()
			} else {
				_ = next.Close()
			}
			_ = heir.Wait()
		})
	}
}
