package keyfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	keyv1 "github.com/manycast/manycast/proto/key/v1"
	"golang.org/x/crypto/nacl/box"
	"google.golang.org/protobuf/proto"
)

// Seal makes a message that only the member can read: the group's key file in an anonymous box. The sender is not in it;
// who may put keys on the bus is the bus' to say.
func Seal(to MemberPublic, g Group) ([]byte, error) {
	public := [32]byte(to)
	out, err := box.SealAnonymous(nil, g.encode(), &public, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("seal key of %s: %w", g.Name, err)
	}
	return out, nil
}

// Open reads a message made by Seal. The group inside has to be the one that it was handed over for, so that no key can be
// passed off as another group's.
func (m Member) Open(sealed []byte, group netip.Addr) (Group, error) {
	if len(sealed) > fileMax+box.AnonymousOverhead {
		return Group{}, fmt.Errorf("sealed key of %d bytes", len(sealed))
	}
	public, private := [32]byte(m.Public()), [32]byte(m.private.Bytes())
	text, ok := box.OpenAnonymous(nil, sealed, &public, &private)
	if !ok {
		return Group{}, errors.New("sealed key is damaged or for another member")
	}
	g, err := decodeGroup(text)
	if err != nil {
		return Group{}, fmt.Errorf("sealed key: %w", err)
	}
	if g.Address != group {
		return Group{}, fmt.Errorf("sealed key is of group %s, not %s", g.Address, group)
	}
	return g, nil
}

// BusKey is where a member finds a group's key in the bucket "keys"; colons are not for bus keys.
func BusKey(member string, group netip.Addr) string {
	return MemberPrefix(member) + strings.ReplaceAll(group.String(), ":", "-")
}

// MemberPrefix begins all of a member's keys in the bucket "keys".
func MemberPrefix(member string) string { return member + "." }

// MemberOf is the other way round: whose key in the bucket "keys" that is, if it is one of the group's.
func MemberOf(busKey string, group netip.Addr) (member string, ok bool) {
	member, _, _ = strings.Cut(busKey, ".")
	return member, busKey == BusKey(member, group)
}

// Registration is a member's value in the bucket "members".
func Registration(name string, public MemberPublic) ([]byte, error) {
	return proto.Marshal(&keyv1.MemberKey{Name: name, Public: public[:]})
}

// ParseRegistration reads the value of the bucket "members" under name.
func ParseRegistration(name string, value []byte) (MemberPublic, error) {
	var m keyv1.MemberKey
	if err := proto.Unmarshal(value, &m); err != nil {
		return MemberPublic{}, fmt.Errorf("member %s: %w", name, err)
	}
	if m.Name != name || len(m.Public) != 32 {
		return MemberPublic{}, fmt.Errorf("member %s: registered as %.64q with a key of %d bytes", name, m.Name, len(m.Public))
	}
	return MemberPublic(m.Public), nil
}

// Envelope is the value that belongs under BusKey.
func Envelope(member string, to MemberPublic, g Group) ([]byte, error) {
	sealed, err := Seal(to, g)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&keyv1.SealedKey{Member: member, Group: g.Address.String(), KeyId: g.Public().ID, Sealed: sealed})
}

// Receive takes a value of the bucket "keys" that is for this member and puts the group key into dir, 0600. It says whether the
// key was new there; one that is there already stays as it is.
func (m Member) Receive(dir string, value []byte) (g Group, isNew bool, err error) {
	var env keyv1.SealedKey
	if err := proto.Unmarshal(value, &env); err != nil {
		return Group{}, false, fmt.Errorf("key from the bus: %w", err)
	}
	address, err := netip.ParseAddr(env.Group)
	if err != nil {
		return Group{}, false, fmt.Errorf("key from the bus: group: %w", err)
	}
	if env.Member != m.Name {
		return Group{}, false, fmt.Errorf("key from the bus is for member %.64q, this is %s", env.Member, m.Name)
	}
	if g, err = m.Open(env.Sealed, address); err != nil {
		return Group{}, false, err
	}
	path := filepath.Join(dir, g.FileName())
	old, err := ReadGroup(path)
	if err == nil && old.Private.Equal(g.Private) {
		return old, false, nil
	}
	return g, true, WriteGroup(path, g, true)
}
