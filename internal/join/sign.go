package join

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"io"
	"time"
)

// signOptions selects Ed25519ctx (RFC 8032 section 5.1): a signature over an extended join is good for nothing else that
// the group's key may ever sign, and the other way round.
var signOptions = &ed25519.Options{Hash: crypto.Hash(0), Context: "manycast extended join 1"}

// Sign encodes j and signs it with the group's private key, the one that KeyID stands for.
func Sign(j Join, key ed25519.PrivateKey) (Signed, error) {
	if len(key) != ed25519.PrivateKeySize {
		return Signed{}, fmt.Errorf("sign join of %v: private key has %d bytes, want %d", j.Group, len(key), ed25519.PrivateKeySize)
	}
	body, err := j.encode(make([]byte, 0, j.size(true)), flagSigned)
	if err != nil {
		return Signed{}, err
	}
	sig, err := key.Sign(nil, body, signOptions)
	if err != nil {
		return Signed{}, fmt.Errorf("sign join of %v: %w", j.Group, err)
	}
	return seal(j, append(body, sig...), len(body))
}

// Unsigned encodes j without a signature; routers take that where they are configured to.
func Unsigned(j Join) (Signed, error) {
	raw, err := j.encode(make([]byte, 0, j.size(false)), 0)
	if err != nil {
		return Signed{}, err
	}
	return seal(j, raw, len(raw))
}

// seal makes the Signed of an encoded join; the signature, if any, begins at end.
func seal(j Join, raw []byte, end int) (Signed, error) {
	if len(raw) > MaxBytes {
		return Signed{}, fmt.Errorf("%w: %d bytes, a TLV holds %d", ErrTooLarge, len(raw), MaxBytes)
	}
	j.Time = time.Unix(0, j.Time.UnixNano()).UTC()
	j.Link = j.Link.Masked()
	s := Signed{Join: j, Raw: raw}
	if end < len(raw) {
		s.Signature = raw[end:]
	}
	return s, nil
}

// Verify reports whether the signature is that of the private key beside pub. An unsigned join never verifies.
func (s Signed) Verify(pub ed25519.PublicKey) bool {
	if len(s.Signature) != ed25519.SignatureSize || len(pub) != ed25519.PublicKeySize || len(s.Raw) < ed25519.SignatureSize {
		return false
	}
	body := s.Raw[:len(s.Raw)-ed25519.SignatureSize]
	return ed25519.VerifyWithOptions(pub, body, s.Signature, signOptions) == nil
}

// Stamp gives the parts of one set their times and random keys: the first has time at, each further one is 1 ns younger
// than the one before. The next set of the requester has to be later than all of them.
func Stamp(parts []Join, at time.Time, random io.Reader) error {
	for i := range parts {
		parts[i].Time = at.Add(time.Duration(i))
		if _, err := io.ReadFull(random, parts[i].Random[:]); err != nil {
			return fmt.Errorf("random key of a join: %w", err)
		}
	}
	return nil
}
