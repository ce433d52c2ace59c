package bgp

import (
	"net/netip"
	"time"
)

// Neighbor is a session that is to be.
type Neighbor struct {
	Address  netip.Addr
	Port     uint16     // that it listens at; 0: 179
	AS       uint32     // four octets (RFC 6793)
	Local    netip.Addr // our end; zero: as routes have it
	Passive  bool       // it connects, not we
	Password string     // TCP MD5 (RFC 2385), at most 80 bytes; empty: none
	// Hops is how far away it may be: 1: on the link.
	Hops int
	// GTSM takes packets that have come no more than Hops hops (RFC 5082), and sends with a TTL of 255.
	GTSM bool
	// Hold is after how long a silent neighbor is gone, 3 s to 65535 s; Keepalive a third of it or less. Whole seconds; the smaller Hold of both ends is taken.
	Hold, Keepalive time.Duration
	ConnectRetry    time.Duration // at least 1 s
	Families        []Family      // unicast and labelled ones of one AFI need sessions of their own where FRR is at the other end
	MaxPrefixes     uint32        // of each family; soon after it tells more it has no session until it is cleared. 0: no limit
	// Import and Export name policies. Without one nothing is taken (RFC 8212), and all paths of ours are told. FlowSpec rules are never
	// taken, and paths of other neighbors never told, whatever policies say.
	Import, Export string
	// Down: there is to be no session with it for now, and nothing is kept of what it told: BFD has found it gone.
	Down bool
}

// Restart is how long forwarding goes on without the speaker.
type Restart struct {
	// Time is how long neighbors are asked to wait for the speaker, and to go on with what it told: graceful restart (RFC 4724), 1 s to 4095 s; 0: none.
	Time time.Duration
	// LongLived is how long they keep it beyond that, as the last resort (RFC 9494), up to 2^24-1 s; 0: not at all.
	LongLived time.Duration
	// Deferral is how long a restarted speaker waits for the neighbors' routes before it tells its own; at least 1 s where Time is not 0.
	Deferral time.Duration
}

// SessionState is a state of RFC 4271 section 8.2.2.
type SessionState string

// The states.
const (
	Idle        SessionState = "idle"
	Connect     SessionState = "connect"
	Active      SessionState = "active"
	OpenSent    SessionState = "opensent"
	OpenConfirm SessionState = "openconfirm"
	Established SessionState = "established"
)

// NeighborState is how a session is.
type NeighborState struct {
	Address    netip.Addr
	AS         uint32
	RouterID   netip.Addr // zero: not told
	State      SessionState
	Since      time.Time     // of Established: when it became so; else when it ceased to be; zero: never was
	Flaps      uint32        // times that it went down soon after it came up
	Restarting bool          // it is away, its routes are kept (RFC 4724)
	OverLimit  bool          // it was closed: more than MaxPrefixes
	Down       bool          // there is to be none
	Hold       time.Duration // agreed
	Families   []FamilyState
	Sent       Messages
	Received   Messages
}

// FamilyState is how many paths of a family a neighbor has told.
type FamilyState struct {
	Family   Family
	Agreed   bool   // both ends have it
	Received uint64 // before policy
}

// Messages are counts of them.
type Messages struct {
	Updates, Notifications, Total uint64
}
