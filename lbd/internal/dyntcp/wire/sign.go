package wire

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"time"
)

// signOptions selects Ed25519ctx (RFC 8032 section 5.1): a signature over a change of destination is good for nothing else that
// the service's key may ever sign, and the other way round.
var signOptions = &ed25519.Options{Hash: crypto.Hash(0), Context: "manycast change destination 1"}

// Sign encodes c and signs it with the service's private key, the one that KeyID stands for.
func Sign(c Change, key ed25519.PrivateKey) (Signed, error) {
	if len(key) != ed25519.PrivateKeySize {
		return Signed{}, fmt.Errorf("sign change of destination to %v: private key has %d bytes, want %d", c.New, len(key), ed25519.PrivateKeySize)
	}
	raw, err := c.encode()
	if err != nil {
		return Signed{}, err
	}
	sig, err := key.Sign(nil, raw, signOptions)
	if err != nil {
		return Signed{}, fmt.Errorf("sign change of destination to %v: %w", c.New, err)
	}
	c.Time = time.UnixMilli(c.Time.UnixMilli()).UTC()
	return Signed{Change: c, Raw: append(raw, sig...)}, nil
}

// Verify reports whether the signature is that of the private key beside pub.
func (s Signed) Verify(pub ed25519.PublicKey) bool {
	if len(s.Raw) != ChangeSize || len(pub) != ed25519.PublicKeySize {
		return false
	}
	return ed25519.VerifyWithOptions(pub, s.Raw[:ChangeOffSignature], s.Raw[ChangeOffSignature:], signOptions) == nil
}
