package proc

import (
	"context"
	"os"
	"slices"
	"strconv"
	"time"
)

// A process without a cgroup and a tag that has left its session too (untagged.go) comes
// to pm when its parent is gone, and nobody can tell of which task it was. At the end,
// when no task is to run any more, that does not matter: it is a runaway, and has to go.

// EndRunaways kills the processes that have come to pm from its tasks, whatever
// their tags, with all their descendants. It is for the time when all tasks are
// over. It returns when a look finds nobody; until then it goes on, and logs now
// and then who withstands.
//
// Children that pm had when it became a keeper are spared: those of a shell that
// became pm, or of a program that pm was before an upgrade. Their orphans come to
// pm as well. Where there are such children only those are therefore ended that
// have a lower limit than pm itself, as had everybody of a task.
func (k *Keeper) EndRunaways() {
	if self, _ := os.Readlink("/proc/self"); self != strconv.Itoa(os.Getpid()) {
		return // this is the /proc of another pid namespace
	}
	begun := time.Now()
	speak := begun.Add(speakUp)
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		h, proved, unsure := k.runaways()
		if proved && (!unsure || time.Since(begun) > speakUp) { // a debugger may hold a zombie for ever
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), speakUp)
		h.killAll(ctx)
		cancel()
		left := h.living()
		h.close()
		if len(left) == 0 {
			time.Sleep(retryMin / 10)
			continue // perhaps they had children, who have come to pm now
		}
		if time.Now().After(speak) {
			speak = time.Now().Add(5 * speakUp)
			k.log.Warn("processes that were left behind withstand SIGKILL; pm goes on until they are gone", "processes", names(left))
		}
		time.Sleep(pause)
	}
}

func names(list []*quarry) (names []string) {
	for _, q := range list {
		names = append(names, q.String())
	}
	return names
}

// runaways looks for runaways once, and starts a hunt for them. It reports whether
// it is proved that there are none; unless it is unsure of one that has ended, whose
// children may have come after pm's were listed, or that could not be looked at.
func (k *Keeper) runaways() (h *hunt, proved, unsure bool) {
	k.launching.Lock() // or a leader would be seen that is not written down yet
	defer k.launching.Unlock()
	h = &hunt{known: map[int]*quarry{}}
	own, whole, err := k.ownChildren()
	if err != nil {
		return h, !passing(err), false // a kernel without such lists
	}
	for _, pid := range own {
		lives := false
		h.add(pid, 0, func(st stat) bool {
			lives = !st.ended()
			return lives && k.runaway(pid, st)
		})
		unsure = unsure || !lives
	}
	return h, len(h.order) == 0 && whole, unsure
}

// runaway reports whether a process that lives, and of which st tells, is a runaway.
func (k *Keeper) runaway(pid int, st stat) bool {
	k.mu.Lock()
	_, leader := k.leaders[pid]
	attendant := k.attended[pid] != nil
	k.mu.Unlock()
	switch {
	case leader || attendant || st.parent != os.Getpid():
		return false
	case len(k.inherited) == 0:
		return true
	}
	limit, err := readTag(pid)
	return err == nil && limit < k.limit && !slices.Contains(k.inherited, Identity{PID: pid, Start: st.start})
}

// inherit notes the children that pm has before it starts any, and its own limit.
func (k *Keeper) inherit() {
	own, _ := threadChildren(k.main, os.Getpid()) // those of an execve(2) are all of this thread
	for _, pid := range own {
		if id, err := Identify(pid); err == nil {
			k.inherited = append(k.inherited, id)
		}
	}
	k.limit, _ = readTag(os.Getpid())
}
