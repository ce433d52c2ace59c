package daemon

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one of capabilities(7), by its number.
type Capability int

// What daemons of the suite may need.
const (
	NetBindService Capability = unix.CAP_NET_BIND_SERVICE
	NetAdmin       Capability = unix.CAP_NET_ADMIN
	NetRaw         Capability = unix.CAP_NET_RAW
	BPF            Capability = unix.CAP_BPF
)

// String is the name as in capabilities(7).
func (c Capability) String() string {
	switch c {
	case NetBindService:
		return "CAP_NET_BIND_SERVICE"
	case NetAdmin:
		return "CAP_NET_ADMIN"
	case NetRaw:
		return "CAP_NET_RAW"
	case BPF:
		return "CAP_BPF"
	}
	return fmt.Sprintf("capability %d", int(c))
}

// Need is a capability and what a daemon does by it.
type Need struct {
	Capability Capability
	To         string // "load BPF programs"
}

// Require fails where this process lacks a capability that it needs: the error names all that are missing, what each is for and
// how to give them. Ask before anything is changed: what fails later fails with a bare EPERM, somewhere in the middle.
func Require(needs ...Need) error {
	has, err := effective()
	if err != nil {
		return err
	}
	return missing(has, os.Geteuid(), needs)
}

// effective is the effective set, bit n for capability n.
func effective() (uint64, error) {
	var data [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0]); err != nil {
		return 0, fmt.Errorf("which capabilities this process has: %w", err)
	}
	return uint64(data[1].Effective)<<32 | uint64(data[0].Effective), nil
}

func missing(has uint64, uid int, needs []Need) error {
	var lacks, all, flags []string
	for _, n := range needs {
		name := n.Capability.String()
		if has&(1<<n.Capability) == 0 {
			lacks = append(lacks, fmt.Sprintf("%s (to %s)", name, n.To))
		}
		all = append(all, name)
		flags = append(flags, "+"+strings.ToLower(strings.TrimPrefix(name, "CAP_")))
	}
	if len(lacks) == 0 {
		return nil
	}
	set := strings.Join(flags, ",")
	return fmt.Errorf("user id %d lacks %s: give it with AmbientCapabilities=%s in the unit, or with setpriv --inh-caps %s --ambient-caps %s; see docs/operations.md",
		uid, strings.Join(lacks, " and "), strings.Join(all, " "), set, set)
}
