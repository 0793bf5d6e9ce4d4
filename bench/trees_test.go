package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The two finders find the same tree, and the whole of it.
func TestFindersAgree(t *testing.T) {
	b := newTestBench(t)
	herd, find := filepath.Join(b.dir, "herd"), filepath.Join(b.dir, "find")
	if err := errors.Join(compile(t.Context(), herdSource, herd), compile(t.Context(), findSource, find)); err != nil {
		t.Fatal(err)
	}
	const n = 115 // four levels
	tree, err := b.startHerd(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	root := tree.cmd.Process.Pid
	floor, err := startServant(t.Context(), find, fmt.Sprint(root))
	if err != nil {
		t.Fatal(err)
	}
	defer floor.close()
	for range 2 { // the second time nothing is left of the first
		found, took, err := floor.find()
		if found != n || took <= 0 || err != nil {
			t.Errorf("find: %d processes in %s, %v", found, took, err)
		}
		found, took, err = findHere(t.Context(), root)
		if found != n || took <= 0 || err != nil {
			t.Errorf("pm: %d processes in %s, %v", found, took, err)
		}
	}
	if h, err := b.startHerd(t.Context(), 0); err == nil {
		h.close()
		t.Error("a herd of nobody was started")
	}
}

func TestSpawnMeasures(t *testing.T) {
	b := newTestBench(t)
	spawn, err := b.spawner(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer spawn.close()
	s, err := spawn.run("sh", "-c", "exit 0")
	if err != nil || s.wall <= 0 || s.memory <= 0 || s.memory > 100 {
		t.Errorf("sh took %+v, %v", s, err)
	}
	for _, argv := range [][]string{{"sh", "-c", "exit 3"}, {"/no/such/program"}} {
		if _, err := spawn.run(argv...); err == nil || !strings.HasPrefix(err.Error(), strings.Join(argv, " ")+" ends with") {
			t.Errorf("%q: %v", argv, err)
		}
	}
}

// A cage leaves nobody of what runs in it, and no cgroup.
func TestCage(t *testing.T) {
	dir, err := cgroupDir()
	if err != nil || os.Mkdir(filepath.Join(dir, fmt.Sprintf("bench-test-%d", os.Getpid())), 0o700) != nil {
		t.Skip("no cgroup can be made here")
	}
	_ = os.Remove(filepath.Join(dir, fmt.Sprintf("bench-test-%d", os.Getpid())))
	b := newTestBench(t)
	cage := filepath.Join(b.dir, "cage")
	b.adversary = filepath.Join(b.dir, "adversary")
	source, err := os.ReadFile("../proc/testdata/adversary.c")
	if err := errors.Join(err, compile(t.Context(), cageSource, cage), compile(t.Context(), source, b.adversary)); err != nil {
		t.Fatal(err)
	}
	err = b.with(t.Context(), cageSupervisor(cage), load{30, wild}, func(s *session, _ time.Duration) error {
		return s.kill(t.Context(), rowKill500)
	})
	if err != nil || len(b.samples[rowKill500][nameFloor]) != 1 {
		t.Errorf("%v, samples %v", err, b.samples)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, filepath.Base(b.dir)+"-*")); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}
