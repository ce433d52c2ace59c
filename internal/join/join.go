// Package join is the extended join (Fig 5, 7B, 7C): one TLV of an IGMPv3 report by RFC 9279 that says for which senders its
// requester joins a group, with the timestamp, the random key and the signature that let a router check it.
package join

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
)

// Join is one part of a requester's complete set for a group. All but KeyID's key is under the signature.
type Join struct {
	Group     netip.Addr   // IPv4 multicast
	Requester netip.Addr   // Field 2 of Fig 5; IP source on the first hop
	Link      netip.Prefix // connected prefix of the requester's interface
	Time      time.Time    // Field 1; nanoseconds since 1970 UTC on the wire
	Random    [16]byte     // Field 3
	Epoch     epoch.Epoch
	Part      uint8 // 1..Parts
	Parts     uint8 // 1..255
	Leave     bool  // the empty set: the requester leaves the group
	Owner     portion.Set
	Standby   portion.Set // becomes active when its owner goes silent
	KeyID     uint32      // which of the group's keys signed
}

// Signed is a join as it travels: relayed routers pass Raw on unchanged.
type Signed struct {
	Join
	Raw       []byte // the TLV's value, magic to signature
	Signature []byte // 64 bytes Ed25519, empty when unsigned
}
