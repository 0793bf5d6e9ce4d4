package ship

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Consul says how the agent of Consul is asked for receivers. The zero value
// asks the one of this machine, without a token.
type Consul struct {
	Address string // host:port, http://…, https://… or unix:///PATH; empty is 127.0.0.1:8500
	Token   string // for its access control; never shown
	CA      string // a file of authorities for https; empty are the system's
}

// ConsulFromEnv reads the variables that Consul's own command does:
// CONSUL_HTTP_ADDR, CONSUL_HTTP_SSL, CONSUL_HTTP_TOKEN, CONSUL_HTTP_TOKEN_FILE and
// CONSUL_CACERT.
func ConsulFromEnv(getenv func(string) string) (Consul, error) {
	c := Consul{Address: getenv("CONSUL_HTTP_ADDR"), Token: getenv("CONSUL_HTTP_TOKEN"), CA: getenv("CONSUL_CACERT")}
	if c.Address != "" && !strings.Contains(c.Address, "://") {
		if secure, _ := strconv.ParseBool(getenv("CONSUL_HTTP_SSL")); secure {
			c.Address = "https://" + c.Address
		}
	}
	if file := getenv("CONSUL_HTTP_TOKEN_FILE"); c.Token == "" && file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return c, fmt.Errorf("cannot read Consul's token: %w", err)
		}
		c.Token = strings.TrimSpace(string(token))
	}
	return c, nil
}

const (
	// longPoll is how long Consul may wait for a change before it answers.
	longPoll = time.Minute
	// answerTime is what it may take beyond that.
	answerTime = 10 * time.Second
	// maxAnswer bounds an answer; an instance takes about a kilobyte.
	maxAnswer = 16 << 20
)

// catalog asks an agent for the instances of a service.
type catalog struct {
	client *http.Client
	query  string // the address to ask, with all but the index
	token  string
	index  uint64 // of the last answer: the next waits for a change
}

func newCatalog(c Consul, r Receiver) (*catalog, error) {
	base := c.Address
	if base == "" {
		base = "127.0.0.1:8500"
	}
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if path, ok := strings.CutPrefix(base, "unix://"); ok {
		base = "http://consul"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("cannot read Consul's authorities: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM form", c.CA)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if _, err := url.Parse(base); err != nil {
		return nil, fmt.Errorf("%q is no address of Consul's agent", base)
	}
	values := url.Values{"passing": {"1"}, "stale": {""}, "wait": {longPoll.String()}}
	if r.Tag != "" {
		values.Set("tag", r.Tag)
	}
	if r.Datacenter != "" {
		values.Set("dc", r.Datacenter)
	}
	return &catalog{
		client: &http.Client{Transport: transport, Timeout: longPoll + longPoll/16 + answerTime},
		query:  strings.TrimSuffix(base, "/") + "/v1/health/service/" + url.PathEscape(r.Service) + "?" + values.Encode(),
		token:  c.Token,
	}, nil
}

// instances returns the addresses of the instances whose checks pass, in order.
// After the first call it waits for a change, or a minute. After a failure it does not:
// a Consul that was away may have begun to count anew.
func (c *catalog) instances(ctx context.Context) (list []string, err error) {
	defer func() {
		if err != nil {
			c.index = 0
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.query+"&index="+strconv.FormatUint(c.index, 10), nil)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("X-Consul-Token", c.token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, plainURL(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s: %.200s", resp.Status, strings.TrimSpace(string(body)))
	}
	c.advance(resp.Header.Get("X-Consul-Index"))
	return parseInstances(body)
}

// advance takes the index of an answer. One that goes back, as after a restart of
// Consul, begins anew.
func (c *catalog) advance(text string) {
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil || index < c.index {
		index = 0
	}
	c.index = index
}

func parseInstances(body []byte) ([]string, error) {
	var entries []struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
		}
	}
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fmt.Errorf("its answer is not understood: %w", err)
	}
	var list []string
	for _, e := range entries {
		host := e.Service.Address
		if host == "" {
			host = e.Node.Address
		}
		if host != "" && e.Service.Port > 0 {
			list = append(list, net.JoinHostPort(host, strconv.Itoa(e.Service.Port)))
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// plainURL is the error of a request without its address, which the sentence
// around it has.
func plainURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return plain(u.Err)
	}
	return err
}

// discover keeps a lane for each instance that Consul knows, until ctx is done.
// When Consul cannot be asked, or knows none, the lanes stay as they are.
func (c *crew) discover(ctx context.Context) {
	o := &c.s.o
	leave := map[string]context.CancelFunc{}
	wait := backoff{finishing: c.s.finishing}
	for ctx.Err() == nil {
		asked := time.Now()
		addresses, err := c.catalog.instances(ctx)
		if err == nil && len(addresses) == 0 {
			err = fmt.Errorf("no instance of %s passes its checks", o.To.Service)
		} else if err != nil {
			err = fmt.Errorf("cannot ask Consul: %w", err)
		}
		if err != nil {
			c.lost(ctx, err)
			wait.pause(ctx)
			continue
		}
		wait.next = 0
		c.assign(ctx, addresses, leave)
		c.rest(ctx, o.Refresh-time.Since(asked))
	}
	for _, cancel := range leave {
		cancel()
	}
}

// lost notes that Consul named nobody.
func (c *crew) lost(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	c.s.queue.mu.Lock()
	defer c.s.queue.mu.Unlock()
	c.missing(err)
	c.checkDone()
}

// assign starts a lane for each new address, and lets those for others leave.
func (c *crew) assign(ctx context.Context, addresses []string, leave map[string]context.CancelFunc) {
	for _, address := range addresses {
		if leave[address] != nil {
			continue
		}
		stay, cancel := context.WithCancel(ctx)
		leave[address] = cancel
		to := c.s.o.To
		to.Address, to.text = address, to.Network+"://"+address
		c.wg.Go(func() { c.newLane(stay, to).run(ctx) }) // ends with stay
	}
	for address := range maps.Clone(leave) {
		if !slices.Contains(addresses, address) {
			leave[address]()
			delete(leave, address)
		}
	}
}

// rest waits so long.
func (c *crew) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
