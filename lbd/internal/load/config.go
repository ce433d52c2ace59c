package load

import (
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Config is the [load] table of lbd/agent.toml.
type Config struct {
	Interval    time.Duration `toml:"interval"`    // between two measurements
	Application string        `toml:"application"` // "": it says nothing; a file's absolute path; an http:// URL
	Timeout     time.Duration `toml:"timeout"`     // of one question to the URL
	Expires     time.Duration `toml:"expires"`     // what the application said counts for that long
}

// DefaultConfig is the configuration without a [load] table.
func DefaultConfig() Config {
	return Config{Interval: time.Second, Timeout: 500 * time.Millisecond, Expires: 30 * time.Second}
}

// Check tells what is wrong with the configuration, nil if nothing is.
func (c Config) Check() error {
	switch {
	case c.Interval < 100*time.Millisecond || c.Interval > 10*time.Second:
		return fmt.Errorf("load.interval %v: want 100ms to 10s", c.Interval)
	case c.Timeout <= 0 || c.Timeout > 10*time.Second:
		return fmt.Errorf("load.timeout %v: want more than 0s, at most 10s", c.Timeout)
	case c.Expires < c.Interval:
		return fmt.Errorf("load.expires %v: want at least load.interval, which is %v", c.Expires, c.Interval)
	}
	return c.checkApplication()
}

func (c Config) checkApplication() error {
	if c.Application == "" || strings.HasPrefix(c.Application, "/") {
		return nil
	}
	if u, err := url.Parse(c.Application); err == nil && u.Scheme == "http" && u.Host != "" {
		return nil
	}
	return fmt.Errorf("load.application %q: want an absolute path, such as /run/app/load, or a URL, such as http://127.0.0.1:8080/load; "+
		"leave it empty where the application says nothing", c.Application)
}
