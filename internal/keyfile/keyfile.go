// Package keyfile keeps key pairs on disk and seals group private keys to members. A group key pair (Ed25519) signs the joins
// of a private group (800 of Fig 8); a member key pair (X25519) is what group keys are handed over under (830).
package keyfile

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/record"
)

const (
	groupType  = "MANYCAST GROUP PRIVATE KEY"
	memberType = "MANYCAST MEMBER PRIVATE KEY"
	fileMax    = 4096 // bytes of a key file
)

// Group is a group's private key.
type Group struct {
	Name      string // the group's FQDN
	Address   netip.Addr
	NotBefore time.Time // whole seconds: routers know the public key by then; zero: now
	Private   ed25519.PrivateKey
}

// NewGroup makes a key pair.
func NewGroup(name string, address netip.Addr) (Group, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return Group{Name: name, Address: address, Private: private}, err
}

// Public is the public key as it stands in the group's record.
func (g Group) Public() record.Key { return record.NewKey(g.Private.Public().(ed25519.PublicKey)) }

// encode is the file's content: PEM, headers for people and programs, the 32-byte seed.
func (g Group) encode() []byte {
	headers := map[string]string{"Name": g.Name, "Address": g.Address.String(), "Key-Id": fmt.Sprintf("%08x", g.Public().ID)}
	if !g.NotBefore.IsZero() {
		headers["Not-Before"] = g.NotBefore.UTC().Format(time.RFC3339)
	}
	return pem.EncodeToMemory(&pem.Block{Type: groupType, Headers: headers, Bytes: g.Private.Seed()})
}

func decodeGroup(text []byte) (Group, error) {
	block, err := decode(text, groupType)
	if err != nil {
		return Group{}, err
	}
	if len(block.Bytes) != ed25519.SeedSize {
		return Group{}, fmt.Errorf("seed of %d bytes, want %d", len(block.Bytes), ed25519.SeedSize)
	}
	g := Group{Name: block.Headers["Name"], Private: ed25519.NewKeyFromSeed(block.Bytes)}
	if g.Address, err = netip.ParseAddr(block.Headers["Address"]); err != nil {
		return Group{}, fmt.Errorf("header Address: %w", err)
	}
	if g.Address.Zone() != "" { // would become a part of the file's name
		return Group{}, fmt.Errorf("header Address %.60q has a zone", g.Address)
	}
	if id := fmt.Sprintf("%08x", g.Public().ID); block.Headers["Key-Id"] != id {
		return Group{}, fmt.Errorf("header Key-Id %.20q: the key's is %s", block.Headers["Key-Id"], id)
	}
	if text, ok := block.Headers["Not-Before"]; ok {
		if g.NotBefore, err = time.Parse(time.RFC3339, text); err != nil {
			return Group{}, fmt.Errorf("header Not-Before: %w", err)
		}
		g.NotBefore = g.NotBefore.UTC()
	}
	return g, nil
}

// MemberPublic is the public half of a member's key pair.
type MemberPublic [32]byte

// ParseMemberPublic reads what String writes.
func ParseMemberPublic(text string) (MemberPublic, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(text))
	if err != nil || len(b) != 32 {
		return MemberPublic{}, fmt.Errorf("member public key %.60q: want 32 bytes in base64", text)
	}
	return MemberPublic(b), nil
}

// String is the key in base64.
func (p MemberPublic) String() string { return base64.StdEncoding.EncodeToString(p[:]) }

// Member is a member's own key pair.
type Member struct {
	Name    string
	private *ecdh.PrivateKey
}

// NewMember makes a key pair.
func NewMember(name string) (Member, error) {
	if err := ValidMember(name); err != nil {
		return Member{}, err
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	return Member{Name: name, private: private}, err
}

// ValidMember says whether a name can be a member's: it is a token of bus keys and a part of file names.
func ValidMember(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
	if name == "" || len(name) > 63 || strings.Trim(name, letters) != "" {
		return fmt.Errorf("member %.70q: want 1 to 63 letters, digits, - and _", name)
	}
	return nil
}

// Public is what others seal to.
func (m Member) Public() MemberPublic { return MemberPublic(m.private.PublicKey().Bytes()) }

func (m Member) encode() []byte {
	headers := map[string]string{"Name": m.Name, "Public": m.Public().String()}
	return pem.EncodeToMemory(&pem.Block{Type: memberType, Headers: headers, Bytes: m.private.Bytes()})
}

func decodeMember(text []byte) (Member, error) {
	block, err := decode(text, memberType)
	if err != nil {
		return Member{}, err
	}
	m := Member{Name: block.Headers["Name"]}
	if err := ValidMember(m.Name); err != nil {
		return Member{}, err
	}
	if m.private, err = ecdh.X25519().NewPrivateKey(block.Bytes); err != nil {
		return Member{}, fmt.Errorf("private key: %w", err)
	}
	if block.Headers["Public"] != m.Public().String() {
		return Member{}, errors.New("header Public does not belong to the private key")
	}
	return m, nil
}

func decode(text []byte, kind string) (*pem.Block, error) {
	if len(text) > fileMax {
		return nil, fmt.Errorf("%d bytes, at most %d", len(text), fileMax)
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("not a PEM file")
	case block.Type != kind:
		return nil, fmt.Errorf("a %.40q, want a %q", block.Type, kind)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something behind the key")
	}
	return block, nil
}
