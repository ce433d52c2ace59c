package daemon

import (
	"fmt"
	"net"
	"os"
	"regexp"
)

// Sections that configuration files of several daemons have.

// LogSection is [log].
type LogSection struct {
	Level string `toml:"level"`
}

// BusSection is [bus]; without URLs there is none.
type BusSection struct {
	URLs        []string `toml:"urls"`
	Credentials string   `toml:"credentials"`
}

// Check finds what cannot work; role is whose credentials are needed.
func (b BusSection) Check(role string) error {
	if len(b.URLs) > 0 && b.Credentials == "" {
		return fmt.Errorf("bus.urls without bus.credentials: name the %s role's file that `manycast bus` made", role)
	}
	return nil
}

// MetricsSection is [metrics]; without an address there are none.
type MetricsSection struct {
	Listen string `toml:"listen"`
}

// Check finds what cannot work.
func (m MetricsSection) Check() error {
	if m.Listen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(m.Listen); err != nil {
		return fmt.Errorf("metrics.listen: %w", err)
	}
	return nil
}

// RouterName is a router's name where none is configured: the host's, or else the daemon's.
func RouterName(daemon string) string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return daemon
}

// CheckRouterName finds what no subject of the bus could carry.
func CheckRouterName(name string) error {
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`).MatchString(name) {
		return fmt.Errorf("name %q: letters, digits, dots, dashes and underscores, at most 63", name)
	}
	return nil
}
