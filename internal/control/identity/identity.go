// Package identity is who members of the control channel are: each has an Ed25519 key pair and a certificate of it by the
// operator's authority. Reports carry the certificate, so nobody needs a directory.
package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/control"
)

// MaxName bounds a member's name, in bytes.
const MaxName = 63

// What certificates are refused for.
var (
	ErrMalformed = errors.New("malformed certificate")
	ErrSignature = errors.New("certificate is not signed by the authority")
	ErrExpired   = errors.New("certificate is not valid at this time")
)

// ID names a certificate in frames: the first 8 bytes of its SHA-256.
type ID [8]byte

// String is the identifier in hexadecimal.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// Certificate says who has a key. Times are whole seconds.
type Certificate struct {
	Name      string // 1 to 63 letters, digits, - _ and .
	Role      control.Role
	Leader    bool       // may announce and commit
	Address   netip.Addr // IPv4, the source of the member's frames
	Public    ed25519.PublicKey
	NotBefore time.Time
	NotAfter  time.Time
	raw       []byte // as signed, with the signature
}

const (
	version    = 1
	flagLeader = 1
	fixedSize  = 4 + 4 + ed25519.PublicKeySize + 8 + 8 // without the name and the signature
	// MaxSize bounds an encoded certificate, in bytes.
	MaxSize = fixedSize + MaxName + ed25519.SignatureSize
)

// signOptions selects Ed25519ctx (RFC 8032 section 5.1): the authority's signature under a certificate is good for nothing else.
var signOptions = &ed25519.Options{Hash: crypto.Hash(0), Context: "manycast control certificate 1"}

// Raw is the certificate as it travels; Sign and Parse set it. Callers must not change it.
func (c Certificate) Raw() []byte { return c.raw }

// ID names the certificate in frames.
func (c Certificate) ID() ID {
	sum := sha256.Sum256(c.raw)
	return ID(sum[:8])
}

// check says what is wrong with the fields.
func (c Certificate) check() error {
	switch {
	case !validName(c.Name):
		return fmt.Errorf("name %.70q: want 1 to %d of letters, digits, dot, - and _", c.Name, MaxName)
	case c.Role < control.Server || c.Role > control.Director:
		return fmt.Errorf("role %d is none", c.Role)
	case c.Leader && c.Role == control.Router:
		return errors.New("a router does not lead")
	case !c.Address.Is4() || c.Address.IsMulticast() || c.Address.IsUnspecified():
		return fmt.Errorf("address %v: want an IPv4 unicast address", c.Address)
	case len(c.Public) != ed25519.PublicKeySize:
		return fmt.Errorf("public key of %d bytes, want %d", len(c.Public), ed25519.PublicKeySize)
	case !c.NotAfter.After(c.NotBefore):
		return fmt.Errorf("valid from %v to %v: that is never", c.NotBefore, c.NotAfter)
	}
	return nil
}

func validName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."
	return name != "" && len(name) <= MaxName && strings.Trim(name, letters) == ""
}

func (c Certificate) encode() []byte {
	var flags byte
	if c.Leader {
		flags = flagLeader
	}
	b := make([]byte, 0, MaxSize)
	b = append(b, version, byte(c.Role), flags, byte(len(c.Name)))
	b = append(b, c.Name...)
	b = append(b, c.Address.AsSlice()...)
	b = append(b, c.Public...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.NotBefore.Unix()))
	return binary.BigEndian.AppendUint64(b, uint64(c.NotAfter.Unix()))
}

// Parse decodes a certificate without asking who signed it: Verify does. Errors wrap ErrMalformed.
func Parse(raw []byte) (Certificate, error) {
	if len(raw) < 4 || len(raw) != fixedSize+int(raw[3])+ed25519.SignatureSize {
		return Certificate{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(raw))
	}
	if raw[0] != version || raw[2]&^flagLeader != 0 {
		return Certificate{}, fmt.Errorf("%w: version %d, flags %#x", ErrMalformed, raw[0], raw[2])
	}
	c := Certificate{Role: control.Role(raw[1]), Leader: raw[2]&flagLeader != 0, raw: append([]byte(nil), raw...)}
	n := 4 + int(raw[3])
	rest := c.raw[n:]
	c.Name = string(raw[4:n])
	c.Address = netip.AddrFrom4([4]byte(rest[:4]))
	c.Public = ed25519.PublicKey(rest[4 : 4+ed25519.PublicKeySize])
	times := rest[4+ed25519.PublicKeySize:]
	c.NotBefore = time.Unix(int64(binary.BigEndian.Uint64(times)), 0).UTC()
	c.NotAfter = time.Unix(int64(binary.BigEndian.Uint64(times[8:])), 0).UTC()
	if err := c.check(); err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return c, nil
}

// Verify says whether the authority signed the certificate and it is valid at now. Errors wrap ErrSignature or ErrExpired.
func (c Certificate) Verify(authority ed25519.PublicKey, now time.Time) error {
	end := len(c.raw) - ed25519.SignatureSize
	if end < 0 || len(authority) != ed25519.PublicKeySize ||
		ed25519.VerifyWithOptions(authority, c.raw[:end], c.raw[end:], signOptions) != nil {
		return fmt.Errorf("%w: %s", ErrSignature, c.Name)
	}
	return c.Valid(now)
}

// Valid says whether now is within the certificate's time.
func (c Certificate) Valid(now time.Time) error {
	if now.Before(c.NotBefore) || !now.Before(c.NotAfter) {
		return fmt.Errorf("%w: %s is good from %s to %s", ErrExpired, c.Name, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// Authority certifies members.
type Authority struct{ Private ed25519.PrivateKey }

// NewAuthority makes a key pair.
func NewAuthority() (Authority, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return Authority{private}, err
}

// Public is what members check certificates with.
func (a Authority) Public() ed25519.PublicKey { return a.Private.Public().(ed25519.PublicKey) }

// Certify signs a certificate for its public key.
func (a Authority) Certify(c Certificate) (Certificate, error) {
	c.NotBefore, c.NotAfter = c.NotBefore.UTC().Truncate(time.Second), c.NotAfter.UTC().Truncate(time.Second)
	if err := c.check(); err != nil {
		return Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	body := c.encode()
	signature, err := a.Private.Sign(nil, body, signOptions)
	if err != nil {
		return Certificate{}, fmt.Errorf("certificate of %s: %w", c.Name, err)
	}
	return Parse(append(body, signature...))
}

// Identity is a member's own: certificate and private key.
type Identity struct {
	Certificate
	Private ed25519.PrivateKey
}

// New makes a key pair and has it certified; the certificate's Public is filled in.
func New(a Authority, c Certificate) (Identity, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	c.Public = public
	c, err = a.Certify(c)
	return Identity{c, private}, err
}
