package health

import (
	"context"
	"time"
)

// Checker probes the application again and again.
type Checker struct {
	config Config
	prober Prober // nil: type none
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
	return &Checker{config: c, prober: p}, nil
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

func (c *Checker) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	return c.prober.Probe(ctx)
}
