package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// fudgeMax bounds how long a signed message can be good for, in seconds; RFC 8945 recommends 300.
const fudgeMax = 300

// keyring verifies and signs with the clients' keys (RFC 8945), hmac-sha256 alone. It is a dns.TsigProvider.
type keyring map[string]Client // by canonical key name

func newKeyring(clients []Client) keyring {
	k := keyring{}
	for _, c := range clients {
		k[dns.CanonicalName(c.Name)] = c
	}
	return k
}

// Generate computes the MAC.
func (k keyring) Generate(msg []byte, t *dns.TSIG) ([]byte, error) {
	c, ok := k[dns.CanonicalName(t.Hdr.Name)]
	if !ok {
		return nil, dns.ErrSecret
	}
	if dns.CanonicalName(t.Algorithm) != dns.HmacSHA256 {
		return nil, dns.ErrKeyAlg
	}
	secret, err := base64.StdEncoding.DecodeString(c.Secret)
	if err != nil {
		return nil, fmt.Errorf("secret of %s: %w", c.Name, err)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write(msg)
	return mac.Sum(nil), nil
}

// Verify checks the MAC, in its full length. The library checks the time afterwards.
func (k keyring) Verify(msg []byte, t *dns.TSIG) error {
	want, err := k.Generate(msg, t)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(t.MAC)
	if err != nil || !hmac.Equal(got, want) {
		return dns.ErrSig
	}
	if t.Fudge > fudgeMax {
		return dns.ErrTime
	}
	return nil
}

// tsigError is the TSIG error code for what verification found (RFC 8945 section 5.2); 0: the message is malformed.
func tsigError(err error) uint16 {
	switch {
	case errors.Is(err, dns.ErrSecret), errors.Is(err, dns.ErrKeyAlg):
		return dns.RcodeBadKey
	case errors.Is(err, dns.ErrSig):
		return dns.RcodeBadSig
	case errors.Is(err, dns.ErrTime):
		return dns.RcodeBadTime
	}
	return 0
}

// replaysMax bounds the updates remembered; only signed ones are.
const replaysMax = 65536

// replays remembers the outcome of signed updates as long as their signature is good, so that one that comes again, from the
// network or from somebody who recorded it, is answered and not done again.
type replays struct {
	start int64 // Unix seconds: older ones may have been done before the restart
	mu    sync.Mutex
	seen  map[string]outcome // by MAC
}

type outcome struct {
	rcode int
	until int64 // Unix seconds
}

func newReplays(start time.Time) *replays {
	return &replays{start: start.Unix(), seen: map[string]outcome{}}
}

// once does an update unless it was done already.
func (r *replays) once(t *dns.TSIG, now time.Time, do func() int) (rcode int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start = min(r.start, now.Unix()) // the clock was ahead then: who has the right time is not to be refused
	if int64(t.TimeSigned) < r.start {
		return dns.RcodeRefused
	}
	if o, ok := r.seen[t.MAC]; ok {
		return o.rcode
	}
	if len(r.seen) >= replaysMax {
		r.forget(now)
	}
	if len(r.seen) >= replaysMax {
		return dns.RcodeServerFailure
	}
	rcode = do()
	if rcode != dns.RcodeServerFailure { // that may work the next time
		r.seen[t.MAC] = outcome{rcode, int64(t.TimeSigned) + int64(t.Fudge)}
	}
	return rcode
}

func (r *replays) forget(now time.Time) {
	for mac, o := range r.seen {
		if o.until < now.Unix() {
			delete(r.seen, mac)
		}
	}
}
