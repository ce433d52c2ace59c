package movement_test

import (
	"bytes"
	"crypto/ed25519"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

var (
	start  = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	at     = netip.MustParseAddrPort
	flow   = movement.Flow{User: at("10.1.0.7:40001"), VIP: at("192.0.2.80:80")}
	cookie = wire.Cookie{1, 2, 3, 4, 5, 6, 7, 8}
	s1     = at("10.2.0.1:8080")
	s2     = at("10.3.0.2:8080")
	s3     = at("10.4.0.3:8080")
)

const (
	service = "shop"
	tag     = 0x2a17
)

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(seed byte) record.Key {
	return record.NewKey(private(seed).Public().(ed25519.PublicKey))
}

// change is move n of the connection.
func change(n uint64, from, to netip.AddrPort) wire.Change {
	return wire.Change{
		Tag: tag, Cookie: cookie, User: flow.User, VIP: flow.VIP, Old: from, New: to, Sequence: n, Time: start, KeyID: public(1).ID,
	}
}

func sign(t testing.TB, c wire.Change, seed byte) []byte {
	t.Helper()
	s, err := wire.Sign(c, private(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s.Raw
}

func signer(c wire.Change) (wire.Signed, error) {
	c.KeyID = public(1).ID
	return wire.Sign(c, private(1))
}

func published() movement.Service {
	return movement.Service{Keys: []record.Key{public(1)}, Destinations: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
}

func connection() movement.Connection {
	return movement.Connection{Flow: flow, Service: service, Tag: tag, Cookie: cookie, Destination: s1}
}

func ms(n int) time.Time { return start.Add(time.Duration(n) * time.Millisecond) }
