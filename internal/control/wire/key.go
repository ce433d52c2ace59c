package wire

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"hash"
	"net/netip"
)

// Key keeps outsiders out: who has the control group's private key can make and check frames. It is not for use by several
// goroutines at a time.
type Key struct {
	ID  uint32 // of the group's public key
	mac hash.Hash
	buf [sha256.Size]byte
}

// NewKey derives the frames' key from the group's private key (RFC 5869): the joins' signatures tell nothing of it.
func NewKey(id uint32, group netip.Addr, private ed25519.PrivateKey) (*Key, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("control key of %v: private key of %d bytes, want %d", group, len(private), ed25519.PrivateKeySize)
	}
	secret, err := hkdf.Key(sha256.New, private.Seed(), nil, "manycast control frame 1 "+group.String(), sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("control key of %v: %w", group, err)
	}
	return &Key{ID: id, mac: hmac.New(sha256.New, secret)}, nil
}

// sum appends the MAC of text (HMAC-SHA-256-128, RFC 4868) to dst.
func (k *Key) sum(dst, text []byte) []byte {
	k.mac.Reset()
	k.mac.Write(text)
	return append(dst, k.mac.Sum(k.buf[:0])[:macSize]...)
}

// Verify says whether a frame that Parse took was made by somebody with this key.
func (k *Key) Verify(raw []byte) bool {
	end := len(raw) - macSize
	if end < headerSize {
		return false
	}
	var mac [macSize]byte
	return subtle.ConstantTimeCompare(k.sum(mac[:0], raw[:end]), raw[end:]) == 1
}
