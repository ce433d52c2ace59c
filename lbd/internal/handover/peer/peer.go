// Package peer is the link between two servers by which connections are handed over: frames over TLS 1.3, both ends known by the
// certificates of the control channel. The giver dials, the taker listens; there are no names, ports or keys to configure beside those.
//
// Each end presents a self-signed X.509 certificate of its control channel's key, and then says Hello with the certificate that the
// authority signed for the same key: TLS proves that it has the key, the certificate whose key that is.
package peer

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

// Version is the protocol's. Peers of different versions do not work together.
const Version = 1

// protocol is what TLS agrees on (RFC 7301): whoever speaks something else on this port is turned away early.
const protocol = "manycast-handover"

// What a peer is turned down for; errors wrap one of them, or one of the identity package.
var (
	ErrVersion  = errors.New("another version of the protocol")
	ErrKey      = errors.New("the certificate is not of the session's key")
	ErrRole     = errors.New("not a server")
	ErrName     = errors.New("not the server that was called")
	ErrRefused  = errors.New("the peer turns us down")
	ErrDown     = errors.New("the link is down")
	ErrOverflow = errors.New("the peer does not read")
)

// Config is what both ends work with. Zero limits take the defaults.
type Config struct {
	Identity  identity.Identity
	Authority ed25519.PublicKey
	Boot      uint64
	Version   uint32           // default Version
	Now       func() time.Time // for certificates, default time.Now

	Links     int           // that a Listener has at a time, known or not yet, default 256
	Strangers int           // of them, of one address and not yet known, default 4
	Handshake time.Duration // until both are known, default 2 s
	Alive     time.Duration // between words of a link that has nothing to say, default 500 ms
	Idle      time.Duration // without a word, after which a link is down, default 2 s
	Stall     time.Duration // that a write of up to 256 KiB may take, default 2 s
	Queue     int           // bytes that may wait to be written, default 256 MiB
}

func (c Config) withDefaults() Config {
	c.Links = cmp.Or(c.Links, 256)
	c.Strangers = cmp.Or(c.Strangers, 4)
	c.Queue = cmp.Or(c.Queue, 256<<20)
	c.Handshake = cmp.Or(c.Handshake, 2*time.Second)
	c.Alive = cmp.Or(c.Alive, 500*time.Millisecond)
	c.Idle = cmp.Or(c.Idle, 2*time.Second)
	c.Stall = cmp.Or(c.Stall, 2*time.Second)
	c.Version = cmp.Or(c.Version, Version)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// Peer is who is at the other end.
type Peer struct {
	Name string
	Boot uint64
}

// session is how TLS is spoken: by the identity's key alone. Who has the other key, Hello says.
func (c Config) session() (*tls.Config, error) {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: c.Identity.Name}}
	own, err := x509.CreateCertificate(rand.Reader, template, template, c.Identity.Private.Public(), c.Identity.Private)
	if err != nil {
		return nil, fmt.Errorf("certificate for TLS: %w", err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		Certificates:           []tls.Certificate{{Certificate: [][]byte{own}, PrivateKey: c.Identity.Private}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // names and chains of X.509 say nothing here: check does
		SessionTicketsDisabled: true, // a resumed session would prove no key
	}, nil
}

func (c Config) hello(refusal error) *handoverv1.Message {
	h := &handoverv1.Hello{Version: c.Version, Certificate: c.Identity.Raw(), Boot: c.Boot}
	if refusal != nil {
		h.Error = fmt.Sprintf("%.200q", refusal.Error())
	}
	return &handoverv1.Message{About: &handoverv1.Message_Hello{Hello: h}}
}

// check says who has said Hello in a session; want is who was called, or empty.
func (c Config) check(m *handoverv1.Message, s tls.ConnectionState, want string) (Peer, error) {
	h := m.GetHello()
	if h == nil {
		return Peer{}, fmt.Errorf("%w: %T where Hello was to be", ErrFrame, m.GetAbout())
	}
	cert, err := identity.Parse(h.GetCertificate())
	switch {
	case h.GetVersion() != c.Version: // before all that may be another thing there; the name is for people, who must not rely on it
		return Peer{}, fmt.Errorf("%w: %s speaks version %d, %s version %d: upgrade the older agent",
			ErrVersion, nameOr(cert.Name, "the peer"), h.GetVersion(), c.Identity.Name, c.Version)
	case err != nil:
		return Peer{}, err
	}
	if err := cert.Verify(c.Authority, c.Now()); err != nil {
		return Peer{}, err
	}
	key, ok := peerKey(s)
	switch {
	case !ok || !bytes.Equal(key, cert.Public):
		return Peer{}, fmt.Errorf("%w: %s", ErrKey, cert.Name)
	case cert.Role != control.Server:
		return Peer{}, fmt.Errorf("%w: %s is a %v", ErrRole, cert.Name, cert.Role)
	case cert.Name == c.Identity.Name:
		return Peer{}, fmt.Errorf("%w: %s is this server's own name", ErrName, cert.Name)
	case want != "" && cert.Name != want:
		return Peer{}, fmt.Errorf("%w: %s answers where %s was to be", ErrName, cert.Name, want)
	case h.GetError() != "":
		return Peer{}, fmt.Errorf("%w: %s says %.200s", ErrRefused, cert.Name, h.GetError())
	}
	return Peer{cert.Name, h.GetBoot()}, nil
}

func nameOr(name, other string) string {
	if name == "" {
		return other
	}
	return name
}

func peerKey(s tls.ConnectionState) (ed25519.PublicKey, bool) {
	if len(s.PeerCertificates) != 1 {
		return nil, false
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	return key, ok
}
