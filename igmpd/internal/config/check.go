package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/internal/daemon"
)

const interfacesMax = 32 // VIFs of a kernel multicast table

// Check finds what cannot work; the error has all of it.
func (c Config) Check() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if c.StateDir == "" {
		bad("state_dir is empty: name a directory")
	}
	if len(c.Roots) == 0 {
		bad("no roots: list the directors' addresses")
	}
	for _, r := range c.Roots {
		if !unicast4(r) {
			bad("root %v: want an IPv4 unicast address", r)
		}
	}
	c.checkInterfaces(bad)
	c.checkTimes(bad)
	c.Keys.Check(bad)
	errs = append(errs, c.Kernel().Check(), c.Control.Check())
	c.checkControl(bad)
	errs = append(errs, daemon.CheckRouterName(c.Name), c.Bus.Check("igmpd"), c.Metrics.Check())
	return errors.Join(errs...)
}

// checkControl finds what does not fit to the rest of the file.
func (c Config) checkControl(bad func(string, ...any)) {
	if !c.Control.Enabled() {
		return
	}
	if c.Control.Check() == nil && !admission.IsPrivate(c.Control.GroupAddr()) {
		bad("control.group %s is public: want one of 232.0.0.0 to 239.255.255.255", c.Control.Group)
	}
	if c.Control.Keys == "" {
		bad("control.keys is empty: name the directory of the control group's private key")
	}
	for _, name := range c.Control.Interfaces {
		if !slices.Contains(c.InterfaceNames(), name) {
			bad("control.interfaces: %s has no [[interface]]", name)
		}
	}
}

func unicast4(a netip.Addr) bool { return a.Is4() && !a.IsMulticast() && !a.IsUnspecified() }

func (c Config) checkInterfaces(bad func(string, ...any)) {
	if len(c.Interfaces) == 0 || len(c.Interfaces) > interfacesMax {
		bad("%d interfaces: 1 to %d [[interface]] sections are needed", len(c.Interfaces), interfacesMax)
	}
	for i, ifc := range c.Interfaces {
		if ifc.Name == "" || len(ifc.Name) > 15 {
			bad("interface %d: name %q: want 1 to 15 bytes", i+1, ifc.Name)
		}
		if slices.ContainsFunc(c.Interfaces[:i], func(o Interface) bool { return o.Name == ifc.Name }) {
			bad("interface %s is there twice", ifc.Name)
		}
		for _, n := range ifc.Neighbors {
			if !unicast4(n) {
				bad("interface %s: neighbor %v: want an IPv4 unicast address", ifc.Name, n)
			}
		}
	}
}

func (c Config) checkTimes(bad func(string, ...any)) {
	positive := func(name string, d, most time.Duration) {
		if d <= 0 || d > most {
			bad("%s is %v: want more than 0 and at most %v", name, d, most)
		}
	}
	q := c.Querier
	positive("querier.query_interval", q.QueryInterval, 31744*time.Second) // the largest QQIC
	positive("querier.query_response_interval", q.QueryResponseInterval, 3174*time.Second)
	positive("querier.last_member_query_interval", q.LastMemberQueryInterval, 3174*time.Second)
	if q.QueryResponseInterval >= q.QueryInterval {
		bad("querier.query_response_interval %v has to be less than query_interval %v (RFC 3376 section 8.3)", q.QueryResponseInterval, q.QueryInterval)
	}
	if q.Robustness < 1 || q.Robustness > 7 {
		bad("querier.robustness is %d: want 1 to 7", q.Robustness)
	}
	a := c.Admission
	positive("admission.skew", a.Skew, time.Hour)
	positive("admission.key_wait", a.KeyWait, time.Minute)
	for name, n := range map[string]int{
		"replay_entries_max": a.ReplayEntriesMax, "rate_per_port": a.RatePerPort, "burst_per_port": a.BurstPerPort, "key_wait_max": a.KeyWaitMax,
	} {
		if n < 1 || n > 1<<24 {
			bad("admission.%s is %d: want 1 to %d", name, n, 1<<24)
		}
	}
}
