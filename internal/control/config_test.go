package control_test

import (
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
)

func TestConfig(t *testing.T) {
	good := control.DefaultConfig()
	if err := good.Check(); err != nil || good.Enabled() {
		t.Errorf("default: %v, enabled %v", err, good.Enabled())
	}
	good.Group, good.Interfaces = "239.80.255.1", []string{"eth0", "eth1"}
	if err := good.Check(); err != nil || !good.Enabled() {
		t.Errorf("good: %v", err)
	}
	for what, change := range map[string]func(*control.Config){
		"group \"10.0.0.1\"":       func(c *control.Config) { c.Group = "10.0.0.1" },
		"group \"224.0.0.251\"":    func(c *control.Config) { c.Group = "224.0.0.251" },
		"group \"ff02::1\"":        func(c *control.Config) { c.Group = "ff02::1" },
		"port 0":                   func(c *control.Config) { c.Port = 0 },
		"identity":                 func(c *control.Config) { c.Identity = "" },
		"0 interfaces":             func(c *control.Config) { c.Interfaces = nil },
		"interface \"eth0\"":       func(c *control.Config) { c.Interfaces = []string{"eth0", "eth0"} },
		"interface \"a/b\"":        func(c *control.Config) { c.Interfaces = []string{"a/b"} },
		"heartbeat 5ms":            func(c *control.Config) { c.Heartbeat = 5 * time.Millisecond },
		"dead_after 140ms":         func(c *control.Config) { c.DeadAfter = 140 * time.Millisecond },
		"ttl 0":                    func(c *control.Config) { c.TTL = 0 },
		"frame_max 100":            func(c *control.Config) { c.FrameMax = 100 },
		"want at least three":      func(c *control.Config) { c.Heartbeat = time.Second },
		"want 1 to 255":            func(c *control.Config) { c.TTL = 256 },
		"`manycast key create aut": func(c *control.Config) { c.Authority = "" },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
