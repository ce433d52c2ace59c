// Package intruder sends joins that no router may admit: the lab's attackers.
package intruder

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/portion"
)

// Kind is what is wrong with a join.
type Kind string

// The kinds of attack, and the reason for which a router has to refuse each.
const (
	Unsigned  Kind = "unsigned"   // no signature: unsigned
	WrongKey  Kind = "wrong-key"  // signed by another key under the group's key id: bad_signature
	Replay    Kind = "replay"     // a captured join, sent again as it was: duplicate
	WrongLink Kind = "wrong-link" // a member's join, well signed, from a link where the member is not: wrong_link
)

// Kinds are all kinds of attack, with the refusal that each has to get.
var Kinds = []struct {
	Kind   Kind
	Reason string
}{{Unsigned, "unsigned"}, {WrongKey, "bad_signature"}, {Replay, "duplicate"}, {WrongLink, "wrong_link"}}

// Attack says what is forged. Its join claims all users, at an epoch above all others.
type Attack struct {
	Kind      Kind
	Group     netip.Addr
	Requester netip.Prefix   // who the join is said to be from, with its link's prefix length
	Key       *keyfile.Group // the group's key; wrong-key takes its id alone, unsigned nothing
}

// Packet is the forged join as a whole IPv4 packet.
func (a Attack) Packet(now time.Time) ([]byte, error) {
	j := join.Join{
		Group: a.Group, Requester: a.Requester.Addr(), Link: a.Requester.Masked(), Time: now, Part: 1, Parts: 1, Change: true,
		Epoch: epoch.Epoch{Term: 1 << 40, Number: 1}, Owner: portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0")}},
	}
	if _, err := rand.Read(j.Random[:]); err != nil {
		return nil, fmt.Errorf("random key: %w", err)
	}
	signed, err := a.sign(j)
	if err != nil {
		return nil, err
	}
	reports, err := join.Batch([]join.Signed{signed}, 1500)
	if err != nil {
		return nil, err
	}
	return envelope(a.Requester.Addr(), reports[0]), nil
}

func (a Attack) sign(j join.Join) (join.Signed, error) {
	if a.Kind == Unsigned {
		return join.Unsigned(j)
	}
	if a.Key == nil {
		return join.Signed{}, fmt.Errorf("attack %s needs the group's key", a.Kind)
	}
	j.KeyID = a.Key.Public().ID
	switch a.Kind {
	case WrongLink:
		return join.Sign(j, a.Key.Private)
	case WrongKey:
		_, other, err := ed25519.GenerateKey(nil)
		if err != nil {
			return join.Signed{}, fmt.Errorf("another key: %w", err)
		}
		return join.Sign(j, other)
	}
	return join.Signed{}, fmt.Errorf("attack %q: want unsigned, wrong-key or wrong-link, or a captured packet to replay", a.Kind)
}

// headerBytes is an IPv4 header with the router alert option.
const headerBytes = 24

// envelope puts a report into an IP packet to 224.0.0.22, TTL 1, router alert. The kernel sets length, id and checksum.
func envelope(source netip.Addr, report []byte) []byte {
	p := make([]byte, headerBytes, headerBytes+len(report))
	p[0], p[1], p[8], p[9] = 0x46, 0xc0, 1, 2
	binary.BigEndian.PutUint16(p[2:], uint16(headerBytes+len(report)))
	src, dst := source.As4(), [4]byte{224, 0, 0, 22}
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	copy(p[20:], []byte{0x94, 4, 0, 0})
	return append(p, report...)
}

// isJoinOf says whether an IPv4 packet is a report with a signed join of the group that is no leave.
func isJoinOf(group netip.Addr, packet []byte) bool {
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != 2 {
		return false
	}
	header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	if header < 20 || total < header || total > len(packet) {
		return false
	}
	message, err := igmp.Parse(packet[header:total])
	if err != nil {
		return false
	}
	report, ok := message.(igmp.Report)
	if !ok {
		return false
	}
	joins, _ := join.FromReport(report)
	for _, j := range joins {
		if j.Group == group && !j.Leave && len(j.Signature) > 0 {
			return true
		}
	}
	return false
}
