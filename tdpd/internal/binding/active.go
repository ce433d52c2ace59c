package binding

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/proto"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// MaxActive is how many users one word of who is active names.
const MaxActive = 1024

// Why a word of who is active is not taken, beside ErrInvalid.
var (
	ErrTooMany = errors.New("more users than one word may name")
	ErrNoUser  = errors.New("no unicast address of a user")
)

// Active is the word that users of a service are active: whoever told the neighbor its reactive binding has had a packet of theirs by way of it.
type Active struct {
	Service string
	Users   []netip.Addr // 1 to MaxActive; of IPv6 User's
}

// User is a user by an address of it: of IPv6 its first 64 bits. false: it is no unicast address of anybody.
func User(a netip.Addr) (netip.Addr, bool) {
	if a.Is6() {
		p, err := a.Prefix(64)
		if err != nil || a.Is4In6() {
			return netip.Addr{}, false
		}
		a = p.Addr()
	}
	if a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240) { // RFC 1122 section 3.2.1.3, RFC 1112 section 4
		return netip.Addr{}, false
	}
	return a, a.IsGlobalUnicast()
}

// EncodeActive encodes a word. That it says something that may be said is its maker's matter.
func EncodeActive(a Active) ([]byte, error) {
	p := &tdpdv1.ActiveUsers{Service: a.Service}
	for _, u := range a.Users {
		if u.Is6() {
			b := u.As16()
			p.Prefixes = append(p.Prefixes, binary.BigEndian.Uint64(b[:]))
			continue
		}
		n, err := number(u)
		if err != nil {
			return nil, err
		}
		p.Users = append(p.Users, n)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}

// DecodeActive decodes what EncodeActive wrote, and checks that its users are some.
func DecodeActive(raw []byte) (Active, error) {
	var p tdpdv1.ActiveUsers
	if len(raw) > MaxSize {
		return Active{}, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(raw), MaxSize)
	}
	if err := proto.Unmarshal(raw, &p); err != nil {
		return Active{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	n := len(p.GetUsers()) + len(p.GetPrefixes())
	if n > MaxActive {
		return Active{}, fmt.Errorf("active users of %q: %w: %d, at most %d", p.GetService(), ErrTooMany, n, MaxActive)
	}
	if n == 0 {
		return Active{}, fmt.Errorf("%w: nobody of %q is active", ErrInvalid, p.GetService())
	}
	a := Active{Service: p.GetService(), Users: make([]netip.Addr, 0, n)}
	for _, u := range p.GetUsers() {
		a.Users = append(a.Users, address(u))
	}
	for _, u := range p.GetPrefixes() {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], u)
		a.Users = append(a.Users, netip.AddrFrom16(b))
	}
	for _, u := range a.Users {
		if _, ok := User(u); !ok {
			return Active{}, fmt.Errorf("active users of %q: %w: %v", a.Service, ErrNoUser, u)
		}
	}
	return a, nil
}
