// Package record is a group's record (Fig 4): name, address, owner, public keys, public/private flag and sessions, and what it
// looks like in the DNS and in a file. It reads and writes; it asks nobody.
package record

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Bounds of a record. They hold for what is written and for what is read.
const (
	KeysMax     = 8
	SessionsMax = 32
	// DestinationsMax prefixes name a pool; more than these are a reason to number servers otherwise.
	DestinationsMax = 32
	// NameMax leaves room for the label "_manycast." within a name's 255 octets.
	NameMax  = 243
	OwnerMax = 200
)

// ErrNone says that there is no record. It never means that the group is public.
var ErrNone = errors.New("no manycast record")

// Key is one of a group's public keys. A group has more than one while its key is rolled.
type Key struct {
	ID     uint32 // KeyID(Public)
	Public ed25519.PublicKey
}

// KeyID is the first four bytes of the key's SHA-256, big endian.
func KeyID(public ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(public)
	return binary.BigEndian.Uint32(sum[:4])
}

// NewKey is public with its identifier.
func NewKey(public ed25519.PublicKey) Key { return Key{ID: KeyID(public), Public: public} }

// Record is one group or VIP (a row of Fig 4).
type Record struct {
	Name    string     // alias: a lower-case FQDN
	Address netip.Addr // group or VIP
	Owner   string     // mail address
	Private bool
	Keys    []Key
	// Destinations are where a VIP's servers are, as prefixes: a connection to the VIP may be led there, and nowhere else. None: nowhere.
	Destinations []netip.Prefix
	Sessions     Sessions  // none: at any time
	Until        time.Time // whole seconds, UTC; zero: permanent
}

// Key finds the public key by its identifier.
func (r Record) Key(id uint32) (ed25519.PublicKey, bool) {
	for _, k := range r.Keys {
		if k.ID == id {
			return k.Public, true
		}
	}
	return nil, false
}

// Expired says whether a temporary group's time is over.
func (r Record) Expired(t time.Time) bool { return !r.Until.IsZero() && !t.Before(r.Until) }

// Timely says whether the group is there and in session at t (step 615 of Fig 6).
func (r Record) Timely(t time.Time) bool { return !r.Expired(t) && r.Sessions.Contains(t) }

// Equal compares all fields; the order of keys, destinations and sessions counts.
func (r Record) Equal(o Record) bool {
	sameKey := func(a, b Key) bool { return a.ID == b.ID && bytes.Equal(a.Public, b.Public) }
	return r.Name == o.Name && r.Address == o.Address && r.Owner == o.Owner && r.Private == o.Private &&
		r.Until.Equal(o.Until) && slices.EqualFunc(r.Keys, o.Keys, sameKey) && slices.Equal(r.Destinations, o.Destinations) && r.Sessions.String() == o.Sessions.String()
}

// PrivateGroup says whether an address lies in the private part of the IPv4 group space, 232-239 (Fig 2).
func PrivateGroup(a netip.Addr) bool {
	return a.Is4() && a.As4()[0] >= 232 && a.As4()[0] <= 239
}

// Validate says what is wrong with a record. An IPv4 group's flag has to agree with its address (Fig 2); a private group has
// at least one key, or nobody could ever join it.
func (r Record) Validate() error {
	if err := validName(r.Name); err != nil {
		return err
	}
	a := r.Address
	if !a.IsValid() || a.IsUnspecified() || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("address %q: want an IPv4 or IPv6 address", a)
	}
	if a.Is4() && a.IsMulticast() && r.Private != PrivateGroup(a) {
		return fmt.Errorf("group %s: flag %s does not agree with the address; 224-231 is public, 232-239 private", a, r.flag())
	}
	if err := validOwner(r.Owner); err != nil {
		return err
	}
	if err := r.validKeys(); err != nil {
		return err
	}
	if err := r.validDestinations(); err != nil {
		return err
	}
	if len(r.Sessions) > SessionsMax {
		return fmt.Errorf("%d sessions, at most %d", len(r.Sessions), SessionsMax)
	}
	if u := r.Until; !u.IsZero() && (u.Nanosecond() != 0 || u.UTC().Year() < 1970 || u.UTC().Year() > 9999) {
		return fmt.Errorf("until %s: want whole seconds and a year from 1970 to 9999", u)
	}
	return nil
}

func (r Record) validKeys() error {
	if r.Private && len(r.Keys) == 0 {
		return errors.New("a private group needs a key")
	}
	if len(r.Keys) > KeysMax {
		return fmt.Errorf("%d keys, at most %d", len(r.Keys), KeysMax)
	}
	for i, k := range r.Keys {
		if len(k.Public) != ed25519.PublicKeySize {
			return fmt.Errorf("key %08x: %d bytes, want %d", k.ID, len(k.Public), ed25519.PublicKeySize)
		}
		if id := KeyID(k.Public); id != k.ID {
			return fmt.Errorf("key %08x: its public key has the identifier %08x", k.ID, id)
		}
		if slices.ContainsFunc(r.Keys[:i], func(o Key) bool { return o.ID == k.ID }) {
			return fmt.Errorf("key %08x: twice in one record", k.ID)
		}
	}
	return nil
}

func (r Record) validDestinations() error {
	if len(r.Destinations) > 0 && (r.Address.IsMulticast() || len(r.Keys) == 0) {
		return fmt.Errorf("destinations of %s: only a VIP with a key has some", r.Address)
	}
	if len(r.Destinations) > DestinationsMax {
		return fmt.Errorf("%d destinations, at most %d", len(r.Destinations), DestinationsMax)
	}
	for i, p := range r.Destinations {
		if err := validDestination(p); err != nil {
			return err
		}
		if p.Addr().Is4() != r.Address.Is4() {
			return fmt.Errorf("destination %s: want the family of %s", p, r.Address)
		}
		if slices.Contains(r.Destinations[:i], p) {
			return fmt.Errorf("destination %s: twice in one record", p)
		}
	}
	return nil
}

// validDestination takes what can be said in an APL and names hosts elsewhere, not everybody.
func validDestination(p netip.Prefix) error {
	a := p.Addr()
	if !p.IsValid() || a.Is4In6() || p != p.Masked() || p.Bits() < 8 || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return fmt.Errorf("destination %s: want a unicast prefix of 8 bits or more, without bits behind them", p)
	}
	return nil
}

func (r Record) flag() string {
	if r.Private {
		return "private"
	}
	return "public"
}

// validName takes lower-case FQDNs of letters, digits, hyphens and underscores: nothing that the DNS would escape.
func validName(name string) error {
	if len(name) > NameMax {
		return fmt.Errorf("name of %d octets, at most %d", len(name), NameMax)
	}
	labels, ok := strings.CutSuffix(name, ".")
	if !ok || labels == "" {
		return fmt.Errorf("name %q: want a full name that ends in a dot", name)
	}
	for label := range strings.SplitSeq(labels, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("name %q: label %q: want 1 to 63 of a-z, 0-9, - and _", name, label)
		}
	}
	return nil
}

// validOwner takes mail addresses that a domain name can carry (RFC 1183: RP).
func validOwner(owner string) error {
	local, domain, ok := strings.Cut(owner, "@")
	bad := func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.+-_=", r)
	}
	if !ok || local == "" || len(local) > 63 || len(owner) > OwnerMax || strings.ContainsFunc(local, bad) {
		return fmt.Errorf("owner %q: want a mail address, local part of letters, digits and .+-_=", owner)
	}
	if err := validName(domain + "."); err != nil {
		return fmt.Errorf("owner %q: %w", owner, err)
	}
	return nil
}
