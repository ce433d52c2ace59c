// Package config is igmpd's configuration file, igmpd.toml.
package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/igmpd/internal/admission"
	"github.com/manycast/manycast/igmpd/internal/kernel"
	"github.com/manycast/manycast/igmpd/internal/membership"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/records"
)

// Config is the whole file; igmpd.toml says what each key means.
type Config struct {
	StateDir   string                `toml:"state_dir"`
	Holder     string                `toml:"holder"`
	Name       string                `toml:"name"`
	Roots      []netip.Addr          `toml:"roots"`
	Log        daemon.LogSection     `toml:"log"`
	Interfaces []Interface           `toml:"interface"`
	Querier    Querier               `toml:"querier"`
	Forwarding Forwarding            `toml:"forwarding"`
	Admission  Admission             `toml:"admission"`
	Keys       records.Config        `toml:"keys"`
	Control    Control               `toml:"control"`
	Bus        daemon.BusSection     `toml:"bus"`
	Metrics    daemon.MetricsSection `toml:"metrics"`
}

// Interface is one [[interface]].
type Interface struct {
	Name      string       `toml:"name"`
	Users     bool         `toml:"users"`
	Members   bool         `toml:"members"`
	Neighbors []netip.Addr `toml:"neighbors"`
}

// Querier is [querier].
type Querier struct {
	QueryInterval           time.Duration `toml:"query_interval"`
	QueryResponseInterval   time.Duration `toml:"query_response_interval"`
	LastMemberQueryInterval time.Duration `toml:"last_member_query_interval"`
	Robustness              int           `toml:"robustness"`
}

// Forwarding is [forwarding].
type Forwarding struct {
	Mode             string `toml:"mode"`
	Accelerator      bool   `toml:"accelerator"`
	Mark             uint32 `toml:"mark"`
	MarkMask         uint32 `toml:"mark_mask"`
	TableBase        uint32 `toml:"table_base"`
	PublicTable      uint32 `toml:"public_table"`
	SourceEntriesMax int    `toml:"source_entries_max"`
	BPFFS            string `toml:"bpffs"`
}

// Admission is [admission].
type Admission struct {
	RequireSignature bool          `toml:"require_signature"`
	Skew             time.Duration `toml:"skew"`
	ReplayEntriesMax int           `toml:"replay_entries_max"`
	RatePerPort      int           `toml:"rate_per_port"`
	BurstPerPort     int           `toml:"burst_per_port"`
	KeyWait          time.Duration `toml:"key_wait"`
	KeyWaitMax       int           `toml:"key_wait_max"`
}

// Control is [control]: the control channel, and where the control group's private key is.
type Control struct {
	control.Config
	Member string `toml:"member"`
	Keys   string `toml:"keys"`
}

// Default is what holds where the file says nothing.
func Default() Config {
	return Config{
		StateDir: "/var/lib/manycast/igmpd",
		Holder:   "/run/manycast/igmpd/holder.sock",
		Name:     daemon.RouterName("igmpd"),
		Log:      daemon.LogSection{Level: "info"},
		Querier: Querier{
			QueryInterval: 125 * time.Second, QueryResponseInterval: 10 * time.Second,
			LastMemberQueryInterval: time.Second, Robustness: 2,
		},
		Forwarding: Forwarding{
			Mode: string(kernel.ModeOwner), Accelerator: true, Mark: 0x4d000000, MarkMask: 0xff000fff, TableBase: 10000,
			SourceEntriesMax: 65536, BPFFS: "/sys/fs/bpf/manycast/igmpd",
		},
		Admission: Admission{
			RequireSignature: true, Skew: 5 * time.Second, ReplayEntriesMax: 65536, RatePerPort: 1000, BurstPerPort: 2000,
			KeyWait: 2 * time.Second, KeyWaitMax: 1024,
		},
		Keys: records.DefaultConfig(),
		Control: Control{
			Config: control.DefaultConfig(),
			Member: "/var/lib/manycast/igmpd/member.key", Keys: "/var/lib/manycast/igmpd/groups",
		},
	}
}

// Load reads and checks a file; unknown keys are errors.
func Load(path string) (Config, error) {
	c := Default()
	if err := daemon.Load(path, &c); err != nil {
		return Config{}, err
	}
	if c.Control.Enabled() && len(c.Control.Interfaces) == 0 {
		c.Control.Interfaces = c.treeInterfaces()
	}
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return c, nil
}

// InterfaceNames are the names of all interfaces, in the order of the file.
func (c Config) InterfaceNames() []string {
	names := make([]string, len(c.Interfaces))
	for i, ifc := range c.Interfaces {
		names[i] = ifc.Name
	}
	return names
}

// treeInterfaces are those that members or routers of ours are on.
func (c Config) treeInterfaces() []string {
	var names []string
	for _, i := range c.Interfaces {
		if i.Members || len(i.Neighbors) > 0 {
			names = append(names, i.Name)
		}
	}
	return names
}

// Kernel is what the forwarding plane has to know.
func (c Config) Kernel() kernel.Config {
	f := c.Forwarding
	return kernel.Config{
		Holder: c.Holder, Mode: kernel.Mode(f.Mode), Accelerator: f.Accelerator, Mark: f.Mark, MarkMask: f.MarkMask,
		TableBase: f.TableBase, PublicTable: f.PublicTable, SourceEntriesMax: f.SourceEntriesMax, BPFFS: f.BPFFS,
	}
}

// Limits is what admission has to know.
func (a Admission) Limits() admission.Config {
	return admission.Config{
		RequireSignature: a.RequireSignature, Skew: a.Skew, ReplayMax: a.ReplayEntriesMax,
		Rate: float64(a.RatePerPort), Burst: float64(a.BurstPerPort), Wait: a.KeyWait, WaitMax: a.KeyWaitMax,
	}
}

// Membership is what the group state has to know.
func (c Config) Membership() membership.Config {
	q := c.Querier
	return membership.Config{
		QueryInterval: q.QueryInterval, QueryResponseInterval: q.QueryResponseInterval,
		LastMemberQueryInterval: q.LastMemberQueryInterval, Robustness: q.Robustness,
		Limits: membership.Limits{Owners: c.Kernel().OwnersMax()},
	}
}
