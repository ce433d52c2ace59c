// Package health watches the application beside an agent: a failing one takes its server out of the pool.
package health

import (
	"fmt"
	"time"
)

// Config is the [health] table of lbd/agent.toml.
type Config struct {
	Type      string        `toml:"type"`      // none | tcp | http | command
	Target    string        `toml:"target"`    // "127.0.0.1:80", "http://127.0.0.1/healthz", or a command line
	Interval  time.Duration `toml:"interval"`  // from the start of one probe to the start of the next
	Timeout   time.Duration `toml:"timeout"`   // of one probe
	Failures  int           `toml:"failures"`  // that many in a row make a healthy application unhealthy
	Successes int           `toml:"successes"` // that many in a row make an unhealthy application healthy
}

// Default is the configuration without a [health] table.
func Default() Config {
	return Config{Type: "none", Interval: time.Second, Timeout: 500 * time.Millisecond, Failures: 3, Successes: 2}
}

// Check tells what is wrong with the configuration, nil if nothing is.
func (c Config) Check() error {
	if c.Type == "none" {
		return nil
	}
	if _, err := newProber(c); err != nil {
		return err
	}
	switch {
	case c.Interval <= 0:
		return fmt.Errorf("health: interval %s: must be more than 0", c.Interval)
	case c.Timeout <= 0:
		return fmt.Errorf("health: timeout %s: must be more than 0", c.Timeout)
	case c.Failures < 1 || c.Successes < 1:
		return fmt.Errorf("health: failures %d, successes %d: both must be at least 1", c.Failures, c.Successes)
	}
	return nil
}
