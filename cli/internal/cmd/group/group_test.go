package group

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/cli/internal/cmd/key/keytest"
	"github.com/manycast/manycast/cli/internal/cmdutil"
	"github.com/manycast/manycast/cli/internal/keybus"
	"github.com/manycast/manycast/cli/internal/registry"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/testdns"
)

// bench is a dnsd of its own, a bus in memory, and a user in front of them.
type bench struct {
	t             *testing.T
	dir           string
	address       string
	tsig          string
	members, keys *keytest.Bucket
	open          keybus.OpenFunc
}

func newBench(t *testing.T) *bench {
	t.Helper()
	d := testdns.Start(t, "cast.example.", "239.in-addr.arpa.", "224.in-addr.arpa.")
	b := &bench{t: t, dir: d.Dir, address: d.Address, tsig: d.WriterFlag()}
	b.members, b.keys, b.open = keytest.Buckets()
	return b
}

// run is `manycast group ARGS`.
func (b *bench) run(args ...string) (stdout string, err error) {
	b.t.Helper()
	stdout, _, err = b.runWith("", "json", args...)
	return stdout, err
}

// runWith is the same with an input and an output format.
func (b *bench) runWith(in, format string, args ...string) (stdout, stderr string, err error) {
	b.t.Helper()
	var out, errs bytes.Buffer
	f := &cmdutil.Factory{In: strings.NewReader(in), Out: &out, Err: &errs, Now: time.Now, Output: format}
	cmd := newCommand(f, b.open)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append(args, "--dns", b.address, "--tsig", b.tsig))
	err = cmd.ExecuteContext(b.t.Context())
	return out.String(), errs.String(), err
}

func (b *bench) must(args ...string) view {
	b.t.Helper()
	out, err := b.run(args...)
	if err != nil {
		b.t.Fatalf("group %v: %v", args, err)
	}
	var v view
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		b.t.Fatalf("group %v: %v\n%s", args, err, out)
	}
	return v
}

// member registers a member as `manycast key create member` does.
func (b *bench) member(name string) keyfile.Member {
	b.t.Helper()
	m, err := keyfile.NewMember(name)
	if err != nil {
		b.t.Fatal(err)
	}
	value, err := keyfile.Registration(name, m.Public())
	if err == nil {
		_, err = b.members.Create(b.t.Context(), name, value)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) receive(m keyfile.Member, group, dir string) keyfile.Group {
	b.t.Helper()
	e, err := b.keys.Get(b.t.Context(), keyfile.BusKey(m.Name, netip.MustParseAddr(group)))
	if err != nil {
		b.t.Fatal(err)
	}
	g, isNew, err := m.Receive(dir, e.Value)
	if err != nil || !isNew {
		b.t.Fatalf("new %v, %v", isNew, err)
	}
	return g
}

func TestFromNothingToUsable(t *testing.T) {
	b := newBench(t)
	s1, s2 := b.member("s1"), b.member("s2")
	v := b.must("create", "web.cast.example", "--owner", "ops@example.com", "--private", "--member", "s1,s2",
		"--sessions", "Mon-Fri 08:00-18:00 UTC", "--sessions", "Sat 08:00-12:00 UTC")
	if !permanentPrivate.Contains(netip.MustParseAddr(v.Address)) || v.Flag != "private" || len(v.Sessions) != 2 || v.Until != nil {
		t.Errorf("%+v", v)
	}
	for _, m := range []keyfile.Member{s1, s2} {
		dir := t.TempDir()
		g := b.receive(m, v.Address, dir)
		if g.Public().String() != v.Keys[0].ID+" ed25519 "+v.Keys[0].Public {
			t.Errorf("%s got another key than the one published", m.Name)
		}
		keys, err := keyfile.ReadGroups(dir)
		if _, ok := keyfile.Pick(keys, g.Address, time.Now()); err != nil || !ok {
			t.Errorf("%s cannot sign with it now: %v", m.Name, err)
		}
	}
	for _, what := range []string{"web.cast.example", "WEB.cast.example.", v.Address} {
		if got := b.must("show", what); got.Name != v.Name || got.Owner != "ops@example.com" || got.Keys[0] != v.Keys[0] {
			t.Errorf("show %s: %+v", what, got)
		}
	}
	text, err := b.run("export", "web.cast.example")
	if err != nil {
		t.Fatal(err)
	}
	if records, err := record.Unmarshal([]byte(text)); err != nil || len(records) != 1 || records[0].Address.String() != v.Address {
		t.Errorf("export: %v\n%s", err, text)
	}
	if _, err := b.run("create", "web.cast.example", "--owner", "ops@example.com", "--private", "--member", "s1"); err == nil ||
		!strings.Contains(err.Error(), "name is taken") {
		t.Errorf("same name: %v", err)
	}
	if _, err := b.run("create", "x.cast.example", "--owner", "ops@example.com", "--private", "--member", "s1", "--address", v.Address); err == nil ||
		!strings.Contains(err.Error(), "address is taken") {
		t.Errorf("same address: %v", err)
	}
	b.must("delete", v.Address)
	if _, err := b.run("show", "web.cast.example"); !errors.Is(err, record.ErrNone) {
		t.Errorf("deleted: %v", err)
	}
	if left, err := b.keys.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("sealed keys left: %v, %v", left, err)
	}
}

func TestTemporaryPublicAndList(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	temporary := b.must("create", "talk.cast.example", "--owner", "ops@example.com", "--private", "--for", "2h", "--member", "s1")
	left := time.Until(*temporary.Until)
	if !temporaryPrivate.Contains(netip.MustParseAddr(temporary.Address)) || left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("%+v", temporary)
	}
	open := b.must("create", "radio.cast.example", "--owner", "ops@example.com", "--public", "--address", "224.2.200.1")
	if open.Flag != "public" {
		t.Errorf("%+v", open)
	}
	for args, want := range map[string]int{"": 1, "--zone=cast.example": 2, "--zone=cast.example,239.in-addr.arpa": 2} {
		out, err := b.run(strings.Fields("list " + args)...)
		var views []view
		if err == nil {
			err = json.Unmarshal([]byte(out), &views)
		}
		if err != nil || len(views) != want {
			t.Errorf("list %s: %d groups, %v", args, len(views), err)
		}
	}
	short := b.must("create", "short.cast.example", "--owner", "ops@example.com", "--private", "--for", "1s", "--member", "s1")
	eventually(t, func() bool {
		_, err := b.run("show", short.Address)
		return errors.Is(err, record.ErrNone)
	})
}

// eventually polls with a deadline.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("not in time")
		}
	}
}

func TestRoll(t *testing.T) {
	b := newBench(t)
	s1 := b.member("s1")
	v := b.must("create", "web.cast.example", "--owner", "ops@example.com", "--private", "--member", "s1", "--ttl", "20s")
	dir := t.TempDir()
	b.receive(s1, v.Address, dir)
	rolled := b.must("roll", "web.cast.example")
	if len(rolled.Keys) != 2 || rolled.Keys[0] != v.Keys[0] {
		t.Fatalf("%+v", rolled)
	}
	g := b.receive(s1, v.Address, dir)
	keys, err := keyfile.ReadGroups(dir)
	if err != nil {
		t.Fatal(err)
	}
	signer := func(at time.Time) string {
		k, _ := keyfile.Pick(keys, g.Address, at)
		return fmt.Sprintf("%08x", k.Public().ID)
	}
	if now, later := signer(time.Now()), signer(time.Now().Add(25*time.Second)); now != v.Keys[0].ID || later != rolled.Keys[1].ID {
		t.Errorf("signs with %s now and %s later", now, later)
	}
	retired := b.must("roll", "web.cast.example", "--retire")
	if len(retired.Keys) != 1 || retired.Keys[0] != rolled.Keys[1] {
		t.Errorf("%+v", retired)
	}
	if _, err := b.run("roll", "web.cast.example", "--retire"); err == nil {
		t.Error("retired the only key")
	}
	if got := b.must("show", v.Address); len(got.Keys) != 1 || got.Keys[0] != retired.Keys[0] {
		t.Errorf("by address: %+v", got)
	}
}

func TestCreateIsAllOrNothing(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	b.member("s2")
	b.keys.Fail = func(k string) error {
		if strings.HasPrefix(k, "s2.") {
			return errors.New("bus broke")
		}
		return nil
	}
	copied := filepath.Join(t.TempDir(), "copy")
	_, err := b.run("create", "web.cast.example", "--owner", "ops@example.com", "--private", "--member", "s1", "--member", "s2",
		"--address", "239.1.2.3", "--key-out", copied)
	if err == nil || !strings.Contains(err.Error(), "bus broke") {
		t.Errorf("%v", err)
	}
	for _, what := range []string{"web.cast.example", "239.1.2.3"} {
		if _, err := b.run("show", what); !errors.Is(err, record.ErrNone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if left, _ := b.keys.List(t.Context()); len(left) != 0 {
		t.Errorf("sealed keys left: %v", left)
	}
	if _, err := os.Stat(copied); !os.IsNotExist(err) {
		t.Errorf("key file left: %v", err)
	}
	b.keys.Fail = nil
	if _, err := b.run("create", "web.elsewhere.example", "--owner", "ops@example.com", "--private", "--member", "s1", "--address", "239.1.2.3"); err == nil ||
		!strings.Contains(err.Error(), "[[zone]]") {
		t.Errorf("name of a zone that is not there: %v", err)
	}
	if _, err := b.run("show", "239.1.2.3"); !errors.Is(err, record.ErrNone) {
		t.Errorf("the reverse zone was not set back: %v", err)
	}
}

func TestCreateSaysWhatIsWrong(t *testing.T) {
	b := newBench(t)
	b.member("s1")
	base := []string{"create", "web.cast.example", "--member", "s1"}
	for want, args := range map[string][]string{
		"owner":                       {"--private"},
		"[private public]":            {"--owner", "ops@example.com"},
		"232/8":                       {"--owner", "ops@example.com", "--private", "--address", "232.1.1.1"},
		"public part":                 {"--owner", "ops@example.com", "--private", "--address", "224.2.1.1"},
		"224-231 is public":           {"--owner", "ops@example.com", "--public", "--address", "239.1.1.1"},
		"want a mail address":         {"--owner", "ops", "--private"},
		"session":                     {"--owner", "ops@example.com", "--private", "--sessions", "always"},
		"a second or more":            {"--owner", "ops@example.com", "--private", "--for", "-1s"},
		"manycast key create member":  {"--owner", "ops@example.com", "--private", "--member", "s9"},
		"neither a public key nor":    {"--owner", "ops@example.com", "--private", "--member-key", "s9=/nonexistent"},
		"does not know key":           {"--owner", "ops@example.com", "--private", "--tsig", "nobody.=" + filepath.Join(b.dir, "writer")},
		"is dnsd running there":       {"--owner", "ops@example.com", "--private", "--dns", "127.0.0.1:1"},
		"only its owner may read":     {"--owner", "ops@example.com", "--private", "--tsig", "x.=" + filepath.Join(b.dir, "dnsd")},
		"--key-out /: there is":       {"--owner", "ops@example.com", "--private", "--key-out", "/"},
		"full name that ends in a do": {"--owner", "ops@", "--private"},
	} {
		var out, errs bytes.Buffer
		f := &cmdutil.Factory{Out: &out, Err: &errs, Now: time.Now, Output: "table"}
		cmd := newCommand(f, b.open)
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(append(append(append([]string{}, base...), "--dns", b.address, "--tsig", b.tsig), args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	if _, err := b.run("create", "web.cast.example", "--owner", "ops@example.com", "--private"); err == nil || !strings.Contains(err.Error(), "--member") {
		t.Errorf("nobody has the key: %v", err)
	}
}

func TestPick(t *testing.T) {
	for _, p := range []netip.Prefix{permanentPrivate, temporaryPrivate, public} {
		for _, random := range []uint32{0, 1, 255, 256, 0x1ff00, 0xffffffff, 0x12345678} {
			a := pick(p, random)
			if last := a.As4()[3]; !p.Contains(a) || last == 0 || last == 255 || allowed(a, p != public) != nil {
				t.Errorf("%s of %s", a, p)
			}
		}
	}
}

func TestReplaceSetsTheReverseZoneBack(t *testing.T) {
	b := newBench(t)
	_, file, _ := strings.Cut(b.tsig, "=")
	secret, err := keyfile.ReadTSIG(file)
	if err != nil {
		t.Fatal(err)
	}
	reg := &registry.Registry{Server: b.address, KeyName: "manycast-cli.", Secret: secret, TTL: 60, Now: time.Now}
	first := record.Record{Name: "web.cast.example.", Address: netip.MustParseAddr("239.1.1.1"), Owner: "ops@example.com", Private: true,
		Keys: []record.Key{record.NewKey(bytes.Repeat([]byte{1}, 32))}}
	if err := reg.Replace(t.Context(), nil, &first); err != nil {
		t.Fatal(err)
	}
	second := first
	second.Address = netip.MustParseAddr("239.1.1.2")
	if err := reg.Replace(t.Context(), nil, &second); !errors.Is(err, registry.ErrNameTaken) {
		t.Errorf("%v", err)
	}
	if _, _, err := reg.FindAddress(t.Context(), second.Address); !errors.Is(err, record.ErrNone) {
		t.Errorf("the reverse zone has the second record: %v", err)
	}
	stale := first
	stale.Owner = "someone@example.com"
	if err := reg.Replace(t.Context(), &stale, nil); !errors.Is(err, registry.ErrChanged) {
		t.Errorf("a record that changed meanwhile was replaced: %v", err)
	}
	if got, ttl, err := reg.Find(t.Context(), first.Name); err != nil || !got.Equal(first) || ttl != 60 {
		t.Errorf("%+v, %d, %v", got, ttl, err)
	}
}
