package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dataplane"
)

// Flow is one TCP connection by the addresses that its two applications see.
type Flow = dataplane.Flow

// Config is what does not change while a client or a server runs.
type Config struct {
	// Interfaces are Ethernet-like: those that lead to servers on a user's host, that where users' packets come on a server's.
	Interfaces []string
	// Cgroup is a directory on a cgroup2 file system: sockets that processes below it make are taken. "": the root of where cgroup2 is
	// mounted. Sockets of other network namespaces than the caller's are left alone.
	Cgroup string
	Bpffs  string // directory for pins, on a bpffs
	Log    *slog.Logger
}

// ErrGone says that there is no such connection, or that the flow is another connection's by now.
var ErrGone = errors.New("no such connection")

func checkPlace(what string, at netip.AddrPort) error {
	a := at.Addr()
	if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || at.Port() == 0 {
		return fmt.Errorf("%s %s: not the address and port of a host", what, at)
	}
	return nil
}
