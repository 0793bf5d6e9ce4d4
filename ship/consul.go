package ship

import "context"

// Consul says how its agent is asked.
type Consul struct {
	Address string // host:port or URL of the agent
	Token   string
}

func (c *crew) discover(ctx context.Context) {}
