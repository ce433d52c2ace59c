package keyservice_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/manycast/manycast/cli/internal/cmdtest"
	"github.com/manycast/manycast/internal/bus"
	"github.com/manycast/manycast/internal/groupkeys"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/records"
	"github.com/manycast/manycast/internal/testdns"
)

var vip = netip.MustParseAddr("192.0.2.80")

// bench is a bus and a dnsd, servers that get keys, and a user's host that asks for them.
type bench struct {
	*cmdtest.Bus
	t      *testing.T
	dns    *testdns.DNS
	source records.Source
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Bus: cmdtest.Start(t), t: t, dns: testdns.Start(t, "cast.example.", "192.in-addr.arpa.", "239.in-addr.arpa.")}
	var err error
	b.source, err = records.Config{Servers: []string{b.dns.Address}, TSIGName: testdns.Reader, TSIGSecretFile: b.dns.ReaderSecret}.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// server runs what an agent has of keys, as a member.
func (b *bench) server(name string) *server {
	b.t.Helper()
	s := &server{t: b.t, inUse: make(chan uint32, 16), dir: filepath.Join(b.t.TempDir(), "groups")}
	member := filepath.Join(b.t.TempDir(), "member.key")
	b.OK("key", "create", "member", name, "--out", member)
	conn, err := bus.Connect(bus.Config{URLs: []string{b.URL()}, Credentials: b.Credentials(), Name: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(conn.Close)
	set := func(keys []keyfile.Group) {
		if g, ok := keyfile.Pick(keys, vip, time.Now()); ok {
			s.inUse <- g.Public().ID
		}
	}
	keys := groupkeys.New(s.dir, member, conn.Bucket(bus.BucketConfig{Name: bus.BucketKeys}), set, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- keys.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	return s
}

// server is a member that gets keys.
type server struct {
	t     *testing.T
	inUse chan uint32 // the key that it signs with, when it is another one
	dir   string      // where its keys are
}

// signsWith waits until the server signs with a key.
func (s *server) signsWith(id string) {
	s.t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case got := <-s.inUse:
			if fmt.Sprintf("%08x", got) == id {
				return
			}
		case <-limit:
			s.t.Fatalf("the server does not sign with %s", id)
		}
	}
}

// published is what a user's host finds.
func (b *bench) published() record.Record {
	b.t.Helper()
	r, _, err := b.source.Fetch(b.t.Context(), vip)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

func (b *bench) args(verb string, args ...string) []string {
	return append([]string{"key", "service", verb, "--dns", b.dns.Address, "--tsig", b.dns.WriterFlag(), "--output", "json"}, args...)
}

type view struct {
	Name, VIP    string
	TTL          int
	Keys         []struct{ ID string }
	Destinations []string
	Members      []string
}

func (v view) ids() (ids []string) {
	for _, k := range v.Keys {
		ids = append(ids, k.ID)
	}
	return ids
}

// has says whether a key is in the server's directory.
func (s *server) has(id string) bool {
	s.t.Helper()
	keys, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, file := range keys {
		if g, err := keyfile.ReadGroup(filepath.Join(s.dir, file.Name())); err == nil && fmt.Sprintf("%08x", g.Public().ID) == id {
			return true
		}
	}
	return false
}

func (b *bench) must(verb string, args ...string) view {
	b.t.Helper()
	out := b.OK(b.args(verb, args...)...)
	var v view
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		b.t.Fatalf("%s: %v\n%s", verb, err, out)
	}
	return v
}

func (b *bench) create(args ...string) view {
	b.t.Helper()
	return b.must("create", append([]string{"shop.cast.example", "--vip", vip.String(), "--owner", "ops@example.com", "--ttl", "30s"}, args...)...)
}

func TestFromMakingToDeleting(t *testing.T) {
	b := newBench(t)
	s1 := b.server("s1")
	v := b.create("--destination", "10.2.0.0/24,10.3.0.4", "--member", "s1")
	if len(v.Keys) != 1 || v.TTL != 30 || strings.Join(v.Destinations, " ") != "10.2.0.0/24 10.3.0.4/32" || strings.Join(v.Members, " ") != "s1" {
		t.Fatalf("%+v", v)
	}
	first := v.Keys[0].ID
	s1.signsWith(first)
	if r := b.published(); fmt.Sprintf("%08x", r.Keys[0].ID) != first || len(r.Destinations) != 2 || r.Name != "shop.cast.example." {
		t.Errorf("published %+v", r)
	}
	for _, what := range []string{"shop.cast.example", "SHOP.cast.example.", vip.String()} {
		if got := b.must("show", what); got.Name != v.Name || strings.Join(got.ids(), " ") != first || got.TTL != 30 {
			t.Errorf("show %s: %+v", what, got)
		}
	}

	v = b.must("publish", "shop.cast.example", "--destination", "10.4.0.0/24", "--ttl", "20s")
	if r := b.published(); len(r.Destinations) != 1 || r.Destinations[0].String() != "10.4.0.0/24" || len(r.Keys) != 1 || v.TTL != 20 {
		t.Errorf("published %+v, %+v", r, v)
	}

	b.Refused([]string{"one key"}, b.args("retire", "shop.cast.example")...)
	b.Refused([]string{"newest", "roll"}, b.args("revoke", "shop.cast.example", first)...)
	v = b.must("roll", vip.String(), "--wait", "1s")
	if len(v.Keys) != 2 || v.Keys[0].ID != first || strings.Join(v.Members, " ") != "s1" {
		t.Fatalf("rolled %+v", v)
	}
	second := v.Keys[1].ID
	s1.signsWith(second)
	b.Refused([]string{"newest"}, b.args("revoke", "shop.cast.example", second)...)
	b.Refused([]string{"no key"}, b.args("revoke", "shop.cast.example", "00000001")...)
	b.must("revoke", "shop.cast.example", first)
	if r := b.published(); len(r.Keys) != 1 || fmt.Sprintf("%08x", r.Keys[0].ID) != second {
		t.Errorf("after revoking: %+v", r.Keys)
	}
	b.must("roll", "shop.cast.example", "--wait", "1s")
	v = b.must("retire", "shop.cast.example")
	if len(v.Keys) != 1 || v.Keys[0].ID == second || len(v.Destinations) != 1 {
		t.Errorf("retired: %+v", v)
	}
	s1.signsWith(v.Keys[0].ID)

	b.pins(v.Keys[0].ID)
	b.must("delete", "shop.cast.example")
	if _, _, err := b.source.Fetch(t.Context(), vip); !errors.Is(err, record.ErrNone) {
		t.Errorf("deleted: %v", err)
	}
	var list []struct{ Groups []string }
	if err := json.Unmarshal([]byte(b.OK("key", "list", "--output", "json")), &list); err != nil || len(list) != 1 || len(list[0].Groups) != 0 {
		t.Errorf("sealed keys left: %+v, %v", list, err)
	}
}

// A server that has turned is put out: the next key is the others', and its own is none once that is revoked.
func TestRollWithoutAMember(t *testing.T) {
	b := newBench(t)
	s1, turned := b.server("s1"), b.server("s2")
	v := b.create("--destination", "10.2.0.0/24", "--member", "s1", "--member", "s2")
	first := v.Keys[0].ID
	s1.signsWith(first)
	turned.signsWith(first)
	v = b.must("roll", "shop.cast.example", "--member", "s1", "--wait", "1s")
	if strings.Join(v.Members, " ") != "s1" {
		t.Errorf("%+v", v)
	}
	second := v.Keys[1].ID
	s1.signsWith(second)
	if !turned.has(first) || turned.has(second) {
		t.Errorf("s2 has the first key: %t, the next one: %t", turned.has(first), turned.has(second))
	}
	b.must("revoke", "shop.cast.example", first)
	if r := b.published(); len(r.Keys) != 1 || fmt.Sprintf("%08x", r.Keys[0].ID) != second {
		t.Errorf("published %+v", r.Keys)
	}
	select {
	case id := <-turned.inUse:
		t.Errorf("s2 signs with %08x", id)
	default:
	}
}

// pins exports the record for a user's host that asks nobody.
func (b *bench) pins(id string) {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(b.OK(b.args("export", "shop.cast.example")...)), 0o600); err != nil {
		b.t.Fatal(err)
	}
	source, err := records.Config{Pinned: []string{file}}.Open()
	if err != nil {
		b.t.Fatal(err)
	}
	if r, _, err := source.Fetch(b.t.Context(), vip); err != nil || fmt.Sprintf("%08x", r.Keys[0].ID) != id || !r.Equal(b.published()) {
		b.t.Errorf("pinned: %+v, %v", r, err)
	}
}

// Others read the DNS, too: the key and the destinations have types of their own.
func TestOtherReadersOfTheDNS(t *testing.T) {
	b := newBench(t)
	v := b.create("--destination", "10.2.0.0/24,10.3.0.4", "--key-out", filepath.Join(t.TempDir(), "shop.key"))
	for _, name := range []string{"shop.cast.example.", "80.2.0.192.in-addr.arpa."} {
		for _, c := range []struct {
			rrtype uint16
			want   string
		}{
			{dns.TypeAPL, name + "\t30\tIN\tAPL\t1:10.2.0.0/24 1:10.3.0.4/32"},
			{dns.TypeIPSECKEY, name + "\t30\tIN\tIPSECKEY\t10 0 4 . "},
		} {
			answer, err := dns.Exchange(new(dns.Msg).SetQuestion(name, c.rrtype), b.dns.Address)
			if err != nil || len(answer.Answer) != 1 || !strings.HasPrefix(answer.Answer[0].String(), c.want) {
				t.Errorf("%s %s: %v, %v", name, dns.TypeToString[c.rrtype], answer, err)
			}
		}
	}
	if len(v.Members) != 0 {
		t.Errorf("handed to %v", v.Members)
	}
}

func TestKeyAsAFile(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(t.TempDir(), "shop.key")
	v := b.create("--destination", "10.2.0.0/24", "--key-out", file)
	g, err := keyfile.ReadGroup(file)
	if err != nil || g.Address != vip || fmt.Sprintf("%08x", g.Public().ID) != v.Keys[0].ID || g.NotBefore.After(time.Now()) {
		t.Fatalf("%+v, %v", g, err)
	}
	b.Refused([]string{"nobody got", "--key-out"}, b.args("roll", "shop.cast.example")...)
	next := filepath.Join(t.TempDir(), "next.key")
	v = b.must("roll", "shop.cast.example", "--key-out", next)
	n, err := keyfile.ReadGroup(next)
	if err != nil || fmt.Sprintf("%08x", n.Public().ID) != v.Keys[1].ID {
		t.Fatalf("%+v, %v", n, err)
	}
	if wait := time.Until(n.NotBefore); wait < 25*time.Second || wait > 36*time.Second {
		t.Errorf("signs with it in %v, the TTL is 30 s", wait)
	}
}

func TestSaysWhatIsWrong(t *testing.T) {
	b := newBench(t)
	good := func(change ...string) []string {
		args := map[string]string{"--vip": "192.0.2.80", "--owner": "ops@example.com", "--destination": "10.2.0.0/24", "--key-out": filepath.Join(t.TempDir(), "key")}
		for i := 0; i < len(change); i += 2 {
			args[change[i]] = change[i+1]
		}
		out := []string{"shop.cast.example"}
		for name, value := range args {
			if value != "" {
				out = append(out, name, value)
			}
		}
		return b.args("create", out...)
	}
	for want, args := range map[string][]string{
		"unicast address":         good("--vip", "239.1.2.3"),
		"required flag":           good("--destination", ""),
		"prefix or an address":    good("--destination", "here"),
		"without bits behind":     good("--destination", "10.2.0.1/24"),
		"8 bits or more":          good("--destination", "0.0.0.0/0"),
		"want the family":         good("--destination", "2001:db8::/32"),
		"want a mail address":     good("--owner", "ops"),
		"1s to 24h":               good("--ttl", "0s"),
		"nobody would have":       good("--key-out", ""),
		"no member s9 on the bus": good("--member", "s9"),
		"has no zone":             good("--vip", "198.51.100.1"),
	} {
		b.Refused([]string{want}, args...)
	}
	if _, _, err := b.source.Fetch(t.Context(), vip); !errors.Is(err, record.ErrNone) {
		t.Errorf("published all the same: %v", err)
	}
	b.OK(good()...)
	b.Refused([]string{"name is taken"}, good()...)
	b.Refused([]string{"no manycast record"}, b.args("show", "mall.cast.example")...)
	b.OK("key", "create", "member", "s1", "--out", filepath.Join(t.TempDir(), "member.key"))
	b.OK("group", "create", "web.cast.example", "--private", "--owner", "ops@example.com", "--member", "s1", "--address", "239.1.2.3",
		"--dns", b.dns.Address, "--tsig", b.dns.WriterFlag())
	b.Refused([]string{"group's"}, b.args("show", "web.cast.example")...)
}
