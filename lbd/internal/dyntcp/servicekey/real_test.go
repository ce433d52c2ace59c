package servicekey_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/internal/testdns"
	"github.com/manycast/manycast/lbd/internal/dyntcp/movement"
	"github.com/manycast/manycast/lbd/internal/dyntcp/servicekey"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// real is a dnsd, the operator's commands, and a user's host with one connection.
type real struct {
	t        *testing.T
	dns      *testdns.DNS
	follower *movement.Follower
	updates  chan servicekey.Update
	keeper   *servicekey.Keeper
	moves    uint64
}

const ttl = 2 * time.Second

func newReal(t *testing.T) *real {
	t.Helper()
	r := &real{
		t: t, dns: testdns.Start(t, "cast.example.", "192.in-addr.arpa."), follower: movement.NewFollower(movement.FollowerLimits{Each: 10000, All: 10000}),
		updates: make(chan servicekey.Update, 1024),
	}
	binary := filepath.Join(r.dns.Dir, "manycast")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/manycast/manycast/cli").CombinedOutput(); err != nil {
		t.Fatalf("build manycast: %v\n%s", err, out)
	}
	cfg := records.Config{Servers: []string{r.dns.Address}, TSIGName: testdns.Reader, TSIGSecretFile: r.dns.ReaderSecret, TTLMax: time.Hour}
	source, err := cfg.Open()
	if err != nil {
		t.Fatal(err)
	}
	r.keeper = servicekey.NewKeeper(source, cfg.TTLMax, func(u servicekey.Update) { r.updates <- u }, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := change(start)
	if _, err := r.follower.Opened(time.Now(), movement.Connection{
		Flow: movement.Flow{User: c.User, VIP: c.VIP}, Service: servicekey.ServiceOf(vip), Tag: c.Tag, Cookie: c.Cookie, Destination: c.VIP,
	}, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// service is `manycast key service VERB`.
func (r *real) service(verb string, args ...string) {
	r.t.Helper()
	args = append([]string{"key", "service", verb, "shop.cast.example", "--dns", r.dns.Address, "--tsig", r.dns.WriterFlag()}, args...)
	if out, err := exec.Command(filepath.Join(r.dns.Dir, "manycast"), args...).CombinedOutput(); err != nil {
		r.t.Fatalf("manycast %v: %v\n%s", args, err, out)
	}
}

// key is the file of a private key as a ring.
func (r *real) key(file string) (*servicekey.Ring, keyfile.Group) {
	r.t.Helper()
	g, err := keyfile.ReadGroup(file)
	if err != nil {
		r.t.Fatal(err)
	}
	ring := &servicekey.Ring{}
	ring.Set([]keyfile.Group{g})
	return ring, g
}

// followed takes what is known by now and says whether the user's host follows a move that the ring signs.
func (r *real) followed(ring *servicekey.Ring, notBefore time.Time) bool {
	r.t.Helper()
	for more := true; more; {
		select {
		case u := <-r.updates:
			r.follower.Set(servicekey.ServiceOf(u.VIP), u.Service)
		default:
			more = false
		}
	}
	r.moves++
	c := change(time.Now())
	c.Sequence, c.Time = r.moves, notBefore.Add(time.Second)
	s, err := ring.Sign(c)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := wire.Decode(s.Raw); err != nil {
		r.t.Fatal(err)
	}
	for _, a := range r.follower.Received(time.Now(), s.Raw) {
		if _, is := a.(movement.Rewrite); is {
			return true
		}
	}
	return false
}

// within polls until ok.
func (r *real) within(limit time.Duration, what string, ok func() bool) {
	r.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(began) > limit {
			r.t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
}

// TestARevokedKeyStopsWithinTheTTL: a key is made, published in a real dnsd, followed, rolled and revoked by commands; the user's host
// follows the new one, and after the TTL no move that the old one has signed.
func TestARevokedKeyStopsWithinTheTTL(t *testing.T) {
	r := newReal(t)
	file := filepath.Join(t.TempDir(), "first.key")
	r.service("create", "--vip", vip.String(), "--owner", "ops@example.com", "--destination", "10.0.0.0/8", "--ttl", ttl.String(), "--key-out", file)
	first, g := r.key(file)
	r.keeper.Use(t.Context(), vip)
	r.within(20*time.Second, "first key", func() bool { return r.followed(first, g.NotBefore) })

	next := filepath.Join(t.TempDir(), "second.key")
	r.service("roll", "--wait", "1s", "--key-out", next)
	second, n := r.key(next)
	if !r.followed(first, g.NotBefore) {
		t.Error("the first key does not count while both are published")
	}
	r.service("revoke", keyID(g))
	revoked := time.Now()
	r.within(20*time.Second, "second key", func() bool { return r.followed(second, n.NotBefore) })
	r.within(20*time.Second, "revoked key", func() bool { return !r.followed(first, g.NotBefore) })
	t.Logf("the revoked key counted for %v, of a TTL of %v", time.Since(revoked), ttl)
	// What the host has may be of before the revocation for the TTL, and for as long as the answer was on its way.
	r.within(20*time.Second, "TTL", func() bool { return time.Since(revoked) >= ttl+time.Second })
	for range 20 {
		if r.followed(first, g.NotBefore) {
			t.Fatal("a move is followed that a revoked key has signed")
		}
	}
	if c := r.follower.Counters(); c.Refused[movement.UnknownKey] < 20 {
		t.Errorf("refused %v", c.Refused)
	}

	r.service("publish", "--destination", "10.9.0.0/16")
	r.within(20*time.Second, "published set", func() bool { // on a busy machine there may be no record that is not over, for a moment
		return !r.followed(second, n.NotBefore) && r.follower.Counters().Refused[movement.OutsideSet] > 0
	})
}

func keyID(g keyfile.Group) string { return g.Public().String()[:8] }
