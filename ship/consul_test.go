package ship

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// agent plays the part of Consul's agent that is used: it answers a question
// with an index only when there is something newer.
type agent struct {
	mu      sync.Mutex // guards all below
	changed *sync.Cond
	index   uint64
	status  int
	list    []string // addresses of instances that pass
	queries []string
	ended   bool
}

func newAgent(t *testing.T) (a *agent, address string) {
	t.Helper()
	a = &agent{index: 1, status: http.StatusOK}
	a.changed = sync.NewCond(&a.mu)
	s := httptest.NewServer(a)
	t.Cleanup(func() {
		a.set(http.StatusOK)
		a.mu.Lock()
		a.ended = true
		a.mu.Unlock()
		a.changed.Broadcast()
		s.Close()
	})
	return a, s.URL
}

// set changes what the agent answers.
func (a *agent) set(status int, addresses ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.index++
	a.status, a.list = status, addresses
	a.changed.Broadcast()
}

// asked is how many questions there were.
func (a *agent) asked() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queries)
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	a.queries = append(a.queries, r.URL.Path+" "+r.Header.Get("X-Consul-Token")+" "+r.URL.Query().Get("tag"))
	for index >= a.index && !a.ended {
		a.changed.Wait()
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(a.index, 10))
	w.WriteHeader(a.status)
	var entries []string
	for n, address := range a.list {
		host, port, _ := net.SplitHostPort(address)
		node, service := "192.0.2.1", host
		if n%2 == 1 { // a service without an address is at its node's
			node, service = host, ""
		}
		entries = append(entries, fmt.Sprintf(`{"Node":{"Address":%q},"Service":{"Address":%q,"Port":%s}}`, node, service, port))
	}
	_, _ = fmt.Fprintf(w, "[%s]", strings.Join(entries, ","))
}

func TestConsul(t *testing.T) {
	a, address := newAgent(t)
	one, two, three := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	a.set(http.StatusInternalServerError)
	s, wait := start(t, t.Context(), "consul+tcp://logs?tag=json", func(o *Options) {
		o.Consul, o.Refresh = Consul{Address: address, Token: "token"}, 0
	})
	ship(t, s, numbered(0, 1)) // nobody is known: it waits

	// Idle receivers take turns, once they are there.
	a.set(http.StatusOK, one.address, two.address)
	n := 1
	send := func(all ...*receiver) {
		ship(t, s, numbered(n, n+1))
		n++
		await(t, n, all...)
	}
	for len(one.received()) == 0 || len(two.received()) == 0 {
		send(one, two)
	}
	before := len(one.received())
	for range 40 {
		for sleeping := 0; sleeping < 2; runtime.Gosched() { // both lanes are back from their last line
			s.queue.mu.Lock()
			sleeping = s.queue.sleeping
			s.queue.mu.Unlock()
		}
		send(one, two)
	}
	if share := len(one.received()) - before; share != 20 {
		t.Errorf("one receiver of two got %d of 40 lines", share)
	}

	// No instance at all, or an error, changes nothing.
	a.set(http.StatusOK)
	a.set(http.StatusForbidden)
	send(one, two)

	// One leaves in order, and another comes: nothing is sent twice.
	a.set(http.StatusOK, two.address, three.address)
	<-three.came
	for range 10 {
		send(one, two, three)
	}
	if c := s.Counters(); c.Resent != 0 {
		t.Errorf("%+v", c)
	}

	// One dies: its share goes to the other.
	three.stop()
	for range 10 {
		ship(t, s, numbered(n, n+1))
		n++
	}
	s.Finish()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	check(t, append(append(one.received(), two.received()...), three.received()...), n, true)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.queries[0] != "/v1/health/service/logs token json" {
		t.Errorf("%q", a.queries[0])
	}
}

// A Consul that was started anew counts changes from the beginning: what it knows is
// heard at once.
func TestConsulBeginsAnew(t *testing.T) {
	a, address := newAgent(t)
	one, two := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	a.set(http.StatusOK, one.address)
	a.mu.Lock()
	a.index = 100
	a.mu.Unlock()
	s, wait := start(t, t.Context(), "consul+tcp://logs", func(o *Options) {
		o.Consul, o.Refresh = Consul{Address: address}, 0
	})
	<-one.came
	a.set(http.StatusInternalServerError)
	for asked, before := 0, a.asked(); asked <= before; runtime.Gosched() {
		asked = a.asked()
	}
	a.mu.Lock()
	a.index, a.status, a.list = 1, http.StatusOK, []string{two.address}
	a.mu.Unlock()
	<-two.came
	ship(t, s, numbered(0, 1))
	two.await(t, 1)
	s.Finish()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// await waits until the receivers have n lines together.
func await(t *testing.T, n int, all ...*receiver) {
	t.Helper()
	for {
		sum := 0
		for _, r := range all {
			sum += len(r.received())
		}
		if sum >= n {
			return
		}
		select {
		case <-all[0].grown:
		case <-all[1].grown:
		case <-all[len(all)-1].grown:
		}
	}
}

func TestConsulFromEnv(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want Consul
	}{
		{nil, Consul{}},
		{map[string]string{"CONSUL_HTTP_ADDR": "c:1", "CONSUL_HTTP_TOKEN": "t"}, Consul{Address: "c:1", Token: "t"}},
		{map[string]string{"CONSUL_HTTP_ADDR": "c:1", "CONSUL_HTTP_SSL": "true", "CONSUL_CACERT": "ca"}, Consul{Address: "https://c:1", CA: "ca"}},
	} {
		got, err := ConsulFromEnv(func(name string) string { return c.env[name] })
		if err != nil || got != c.want {
			t.Errorf("%v: %+v %v", c.env, got, err)
		}
	}
}

// One of two receivers does not read: what is kept for it does not stand in the
// way of the other.
func TestOneIsStuck(t *testing.T) {
	a, address := newAgent(t)
	good := listen(t, "tcp", "127.0.0.1:0")
	stuck, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stuck.Close() }()
	a.set(http.StatusOK, good.address, stuck.Addr().String())
	s, wait := start(t, t.Context(), "consul+tcp://logs", func(o *Options) {
		o.Consul, o.silence = Consul{Address: address}, 200*time.Millisecond
	})
	<-good.came
	const n = 20_000
	padding := strings.Repeat("x", 1000)
	for at := range n {
		ship(t, s, fmt.Appendf(nil, "line %d%s\n", at, padding))
	}
	good.await(t, n/2)
	_ = stuck.Close()
	a.set(http.StatusOK, good.address)
	s.Finish()
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}
