package runner

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pm.example/proc"
)

// planningHost notes what is planned.
type planningHost struct {
	*fakeHost
	mu    sync.Mutex // guards plans
	plans []string
}

func (h *planningHost) Plan(id string, next proc.Successor, prepare func() (*proc.Command, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	how := "plan "
	if prepare != nil {
		how = "plan anew "
	}
	h.plans = append(h.plans, how+id+" "+next.ID)
}

func (h *planningHost) Unplan(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plans = append(h.plans, "unplan "+id)
}

func (h *planningHost) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	plans := h.plans
	h.plans = nil
	return plans
}

// A task that counts as started has a successor planned, under the id that the
// next launch then uses; a stop and a change of the description take it back.
func TestSuccessorIsPlanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeHost(func(n int) life {
			if n == 1 {
				return life{lasts: 5 * time.Second, status: proc.Status{Code: 1}}
			}
			return forever
		})
		host := &planningHost{fakeHost: fake}
		g := New(Options{Host: host, Tell: func(Event) {}, Capture: func(string, int, proc.Event) {}, Drop: func(string, int) {}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = g.Run(ctx) }() // ends with ctx
		p := &Program{
			Name: "web", NumProcs: 1, Autostart: true, Foresee: true, StartTime: time.Second, StartRetries: 3,
			Backoff: Backoff{Burst: 5, BurstWindow: 10 * time.Second}, Stop: []StopStep{{Signal: 15, Wait: time.Second}},
			Command: func(int) (*proc.Command, error) { return &proc.Command{}, nil },
		}
		if err := g.Apply(ctx, []*Program{p}, nil, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		if plans := host.take(); len(plans) > 0 {
			t.Errorf("planned before it counts as started: %q", plans)
		}
		time.Sleep(time.Second)
		first := host.take()
		if len(first) != 1 {
			t.Fatalf("planned %q", first)
		}
		planned := first[0][strings.LastIndexByte(first[0], ' ')+1:]

		time.Sleep(5 * time.Second) // it dies, and the successor starts
		list, _, err := g.Snapshot(ctx, nil)
		if err != nil || list[0].TaskID != planned {
			t.Errorf("the task is %q, and %q was planned (%v)", list[0].TaskID, planned, err)
		}
		second := host.take()
		if len(second) != 1 {
			t.Fatalf("planned %q", second)
		}
		next := second[0][strings.LastIndexByte(second[0], ' ')+1:]
		more := *p
		more.NumProcs = 2
		if err := g.Apply(ctx, []*Program{&more}, nil, nil); err != nil {
			t.Fatal(err)
		}
		// Its turn may have come a moment ago: then it is the next task all the same.
		if again := host.take(); len(again) != 1 || again[0] != "plan anew "+planned+" "+next {
			t.Errorf("after a change that leaves it alone: %q, want the plan of %s again", again, next)
		}
		changed := *p
		changed.Restart = RestartNever
		if err := g.Apply(ctx, []*Program{&changed}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if plans := host.take(); !slices.Equal(plans, []string{"unplan " + planned}) {
			t.Errorf("after a change to never: %q", plans)
		}
		if err := g.Apply(ctx, []*Program{p}, nil, nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A keeper that takes another's place is told again what was planned.
func TestPlanOutlivesTheKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &keptPlanner{keptHost: newKeptHost(func(int) life { return forever })}
		p := service("web")
		p.Foresee, p.StartTime = true, time.Second
		records := map[string]Saved{}
		for n, past := range []Past{{}, {}, {Orphaned: true}} {
			j := &mortalJournal{records: records, put: map[string]*Saved{}, written: func() {}}
			g := New(Options{
				Host: host, Journal: j, Log: slog.New(slog.DiscardHandler), Tell: func(Event) {},
				Capture: func(string, int, proc.Event) {}, Drop: func(string, int) {},
			})
			host.replay()
			if faults := g.Restore([]*Program{p}, slices.Collect(maps.Values(records)), past); len(faults) > 0 {
				t.Fatal(faults)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_ = g.Run(ctx)
			cancel()
			if want := []int{1, 1, 2}[n]; len(host.plans) != want || host.plans[want-1] != host.plans[0] {
				t.Errorf("group %d: planned %q", n+1, host.plans)
			}
		}
	})
}

// keptPlanner notes what is planned.
type keptPlanner struct {
	*keptHost
	plans []string
}

func (h *keptPlanner) Plan(id string, next proc.Successor, prepare func() (*proc.Command, error)) {
	if h.plans != nil && prepare == nil {
		panic("another group has started it: this one cannot know by what")
	}
	h.plans = append(h.plans, id+" "+next.ID)
}

func (h *keptPlanner) Unplan(string) {}
