package health

import (
	"context"
	"fmt"
	"time"
)

// Checker probes the application again and again.
type Checker struct {
	config Config
	prober Prober // nil: type none
	after  func(time.Duration) <-chan time.Time
}

// New returns a checker for the configuration.
func New(c Config) (*Checker, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Type == "none" {
		return &Checker{config: c}, nil
	}
	p, err := newProber(c)
	if err != nil {
		return nil, err
	}
	return &Checker{config: c, prober: p, after: time.After}, nil
}

// Run probes until ctx ends and calls report with the verdict: once after the first probe, then at each change; why is the last
// probe's error, nil when it succeeded. Type none is healthy at once.
func (c *Checker) Run(ctx context.Context, report func(healthy bool, why error)) {
	if c.prober == nil {
		report(true, nil)
		<-ctx.Done()
		return
	}
	tick := time.NewTicker(c.config.Interval)
	defer tick.Stop()
	state := NewState(c.config)
	for {
		err := c.probe(ctx)
		if ctx.Err() != nil {
			return
		}
		if state.Result(err == nil) {
			report(state.Healthy(), err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// parts is into how many parts the time of a probe is cut.
const parts = 10

// probe gives the application its time, as far as this process was run itself. While the machine stands still, or has no time for the agent, the
// application's answer may have come and not been read: such a pause counts as one part, however long it was.
func (c *Checker) probe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.prober.Probe(ctx) }()
	for range parts {
		select {
		case err := <-ended:
			return err
		case <-c.after(c.config.Timeout / parts):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		return fmt.Errorf("%w: not within %v: %w", context.DeadlineExceeded, c.config.Timeout, err)
	}
	return nil
}
