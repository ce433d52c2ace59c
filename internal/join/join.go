// Package join is the extended join (Fig 5, 7B, 7C): one TLV of an IGMPv3 report by RFC 9279 that says for which senders its
// requester joins a group, with the timestamp, the random key and the signature that let a router check it.
// docs/wire-formats.md has it byte by byte.
package join

import (
	"errors"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/portion"
)

// What is wrong with a join; errors of this package wrap one of them.
var (
	ErrMalformed = errors.New("malformed extended join")
	ErrVersion   = errors.New("unknown version of the extended join")
	ErrTooLarge  = errors.New("extended join too large")
)

// Join is one part of a requester's complete set for a group. All but KeyID's key is under the signature.
//
// The complete set permits what any of its parts permits, less what any of its parts denies: a part alone means nothing.
type Join struct {
	Group     netip.Addr   // IPv4 multicast
	Requester netip.Addr   // Field 2 of Fig 5; IP source on the first hop
	Link      netip.Prefix // connected prefix of the requester's interface
	Time      time.Time    // Field 1; nanoseconds since 1970 UTC on the wire; part i is 1 ns younger than part i-1
	Random    [16]byte     // Field 3
	Epoch     epoch.Epoch
	Part      uint8 // 1..Parts
	Parts     uint8 // 1..255
	Leave     bool  // the empty set: the requester leaves the group; one part, no portions
	Change    bool  // the set is new (CHANGE_TO_EXCLUDE_MODE), no refresh or answer to a query (MODE_IS_EXCLUDE)
	Owner     portion.Set
	Standby   portion.Set // becomes active when its owner goes silent
	KeyID     uint32      // which of the group's keys signed
}

// SetTime is the time of the set that the join is a part of: the time of its first part. It is the same in all parts of
// one set and differs from set to set, at the same epoch too.
func (j Join) SetTime() time.Time { return j.Time.Add(-time.Duration(j.Part-1) * time.Nanosecond) }

// Record is the group record that goes with the join in its report, without sources always, so that a snooping switch
// passes every sender.
func (j Join) Record() igmp.Record {
	kind := igmp.ModeIsExclude
	switch {
	case j.Leave:
		kind = igmp.ChangeToInclude
	case j.Change:
		kind = igmp.ChangeToExclude
	}
	return igmp.Record{Type: kind, Group: j.Group}
}

// Signed is a join as it travels: relayed routers pass Raw on unchanged.
type Signed struct {
	Join
	Raw       []byte // the TLV's value, magic to signature
	Signature []byte // 64 bytes Ed25519, empty when unsigned
}
