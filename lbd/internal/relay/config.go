package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/manycast/manycast/internal/service"
)

// How the backend hears of the user.
const (
	Transparent = "transparent" // connections come from the user's own address
	ProxyV2     = "proxy"       // the PROXY protocol's header, version 2, comes first
	ProxyV1     = "proxy-v1"    // its version 1, in text
	Nothing     = "none"        // it does not
)

// Listen is one [[listen]] of lbd/relay.toml: where users come, and which backend they get to.
type Listen struct {
	Name      string           `toml:"name"`
	Addresses []netip.AddrPort `toml:"addresses"` // a VIP's
	Backend   string           `toml:"backend"`   // "127.0.0.1:8080", or "unix:/run/app.sock"
	User      string           `toml:"user"`      // Transparent, ProxyV2, ProxyV1 or Nothing
}

// unixPrefix begins a backend that is a unix socket.
const unixPrefix = "unix:"

// Check finds what cannot work.
func (l Listen) Check() error {
	errs := []error{service.CheckName(l.Name)}
	if len(l.Addresses) == 0 {
		errs = append(errs, errors.New(`no addresses: name the VIP and its ports, such as addresses = ["192.0.2.80:80"]`))
	}
	for _, a := range l.Addresses {
		if !a.Addr().IsValid() || a.Addr().IsUnspecified() || a.Port() == 0 {
			errs = append(errs, fmt.Errorf("address %v: want a VIP and a port: at all addresses a server would be hidden, too", a))
		}
	}
	if !slices.Contains([]string{Transparent, ProxyV2, ProxyV1, Nothing}, l.User) {
		errs = append(errs, fmt.Errorf("user %q: want %s, %s, %s or %s", l.User, Transparent, ProxyV2, ProxyV1, Nothing))
	}
	return errors.Join(append(errs, l.checkBackend())...)
}

func (l Listen) checkBackend() error {
	if path, ok := strings.CutPrefix(l.Backend, unixPrefix); ok {
		switch {
		case !strings.HasPrefix(path, "/"):
			return fmt.Errorf("backend %q: want an absolute path", l.Backend)
		case l.User == Transparent:
			return fmt.Errorf("backend %q: a unix socket sees no address: let it hear of the user by %s, or by %s", l.Backend, ProxyV2, Nothing)
		}
		return nil
	}
	at, err := netip.ParseAddrPort(l.Backend)
	if err != nil || at.Port() == 0 || at.Addr().IsUnspecified() {
		return fmt.Errorf(`backend %q: want an address and a port, such as "127.0.0.1:8080", or "unix:/run/app.sock"`, l.Backend)
	}
	for _, a := range l.Addresses {
		if a == at {
			return fmt.Errorf("backend %v is the relay's own address: have the server listen at another one, such as 127.0.0.1:8080", at)
		}
		if l.User == Transparent && a.Addr().Is4() != at.Addr().Is4() {
			return fmt.Errorf("backend %v, address %v: %s needs both of one IP version", at, a, Transparent)
		}
	}
	return nil
}

// Transparently reports whether a backend sees users' own addresses, which needs privileges.
func Transparently(listens []Listen) bool { return len(transparentBackends(listens)) > 0 }

// transparentBackends are the backends that see users' own addresses.
func transparentBackends(listens []Listen) []netip.AddrPort {
	var backends []netip.AddrPort
	for _, l := range listens {
		at, err := netip.ParseAddrPort(l.Backend)
		if err == nil && l.User == Transparent && !slices.Contains(backends, at) {
			backends = append(backends, at)
		}
	}
	return backends
}
