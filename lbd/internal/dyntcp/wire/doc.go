// Package wire is what dynamic TCP puts on the wire (Fig 20, 21): the TCP option of the handshake and the signed message that a
// server sends when it has taken a live connection over. docs/wire-formats.md has both byte by byte; bpf/dyntcp.h has the same
// numbers for the programs that read them first. Pure: without sockets, clocks or keys on disk.
package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
)

// What is wrong with an option or a message; errors of this package wrap one of them.
var (
	ErrMalformed = errors.New("malformed")
	ErrVersion   = errors.New("unknown version of the change of destination")
)

// CookieSize is the size of a cookie, in bytes.
const CookieSize = 8

// Cookie is the secret of one connection that who is not on its path cannot know: random, chosen by the user's host.
type Cookie [CookieSize]byte

// String is the begin of the cookie alone, for people: all of it in a log would let its readers guess less.
func (c Cookie) String() string { return hex.EncodeToString(c[:2]) + "…" }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// unicast says why a is no address and port of a host elsewhere, which is all that a connection has at its ends: a destination
// on the user's own host, or on whatever link it is at, is nothing that a server may name.
func unicast(what string, a netip.AddrPort) error {
	addr := a.Addr()
	if !addr.IsGlobalUnicast() || addr.Zone() != "" || addr.Is4In6() || a.Port() == 0 {
		return malformed("%s %v is no address and port of a host", what, a)
	}
	return nil
}
