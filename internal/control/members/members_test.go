package members_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/controltest"
	"github.com/manycast/manycast/internal/control/identity"
	"github.com/manycast/manycast/internal/control/members"
	"github.com/manycast/manycast/internal/control/sender"
	"github.com/manycast/manycast/internal/control/wire"
	controlv1 "github.com/manycast/manycast/proto/control/v1"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var (
	addr1 = netip.MustParseAddr("10.0.0.1")
	addr2 = netip.MustParseAddr("10.0.0.2")
)

// speaker is a sender with its own clock.
type speaker struct {
	*sender.Sender
	id   identity.Identity
	skew time.Duration
}

func newSpeaker(t testing.TB, id identity.Identity, boot uint64, at time.Time) *speaker {
	t.Helper()
	s, err := sender.New(sender.Config{Identity: id, Group: controltest.Group, Boot: boot, Started: at, Random: controltest.Random(byte(boot))})
	if err != nil {
		t.Fatal(err)
	}
	s.SetKey(controltest.Key(1))
	return &speaker{Sender: s, id: id}
}

func server(t testing.TB, name string, a netip.Addr, boot uint64) *speaker {
	return newSpeaker(t, controltest.Identity(name, control.Server, false, a, begin), boot, begin)
}

// listener is a Members with the events that came.
type listener struct {
	t testing.TB
	*members.Members
	events []control.Event
}

func newListener(t testing.TB, started time.Time) *listener {
	m := members.New(members.Config{Group: controltest.Group, Authority: controltest.Authority().Public(), Started: started})
	m.SetKeys([]*wire.Key{controltest.Key(1)})
	return &listener{t: t, Members: m}
}

func (l *listener) frame(now time.Time, s *speaker, raw []byte) error {
	events, err := l.Frame(now, now, "eth0", s.id.Address, raw)
	l.events = append(l.events, events...)
	return err
}

func (l *listener) member(name string) control.Member {
	for _, m := range l.Members.Members() {
		if m.Name == name {
			return m
		}
	}
	return control.Member{}
}

func (l *listener) received(kind control.Kind) (bodies []string) {
	for _, e := range l.events {
		if r, ok := e.(control.Received); ok && r.Kind == kind {
			bodies = append(bodies, string(r.Body))
		}
	}
	return bodies
}

// run lets all speak and listen from one time to another, 5 ms a step; lose may drop frames. All that was said comes back.
func run(t testing.TB, from, to time.Time, ls []*listener, ss []*speaker, lose func(*speaker) bool) (said [][]byte, end time.Time) {
	t.Helper()
	now := from
	for ; now.Before(to); now = now.Add(5 * time.Millisecond) {
		for _, s := range ss {
			if now.Before(s.Next()) {
				continue
			}
			frames, _, err := s.Tick(now, now.Add(s.skew))
			if err != nil {
				t.Fatal(err)
			}
			said = append(said, frames...)
			for _, f := range frames {
				for _, l := range ls {
					if lose == nil || !lose(s) {
						l.frame(now, s, f)
					}
				}
			}
		}
		for _, l := range ls {
			if !now.Before(l.Next()) {
				l.events = append(l.events, l.Tick(now)...)
			}
		}
	}
	return said, now
}

func refusals(l *listener) map[members.Reason]uint64 { return l.Counters().Refused }

func TestSilence(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	if m := l.member("s1"); m.Health != control.Available || !slices.Equal(m.Via, []string{"eth0"}) || m.Address != addr1 {
		t.Fatalf("%+v", m)
	}
	heard := l.member("s1").Heard
	l.events = nil
	run(t, now, now.Add(time.Second), []*listener{l}, nil, nil)
	if len(l.events) == 0 {
		t.Fatal("nobody noticed")
	}
	m := l.events[len(l.events)-1].(control.Changed).Member
	if m.Health != control.Silent || len(m.Via) != 0 {
		t.Errorf("%+v", m)
	}
	if after := m.Since.Sub(heard); after < members.DefaultDeadAfter || after > members.DefaultDeadAfter+10*time.Millisecond {
		t.Errorf("silent %v after its last heartbeat", after)
	}
	if !l.Deaf(now.Add(time.Second)) {
		t.Error("not deaf, though nobody is heard any more")
	}
}

// A chain ends and the next one begins: nobody must be silent for it, whatever frames are lost.
func TestNextChain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	lose := func(*speaker) bool { return random.IntN(10) == 0 }
	long := time.Duration(sender.DefaultChain) * sender.DefaultHeartbeat
	run(t, begin, begin.Add(2*long+time.Minute), []*listener{l}, []*speaker{s}, lose)
	if n := refusals(l); n[members.BadChain] > 0 || n[members.Replayed] > 0 {
		t.Errorf("refused %v", n)
	}
	silent := 0
	for _, e := range l.events {
		if c, ok := e.(control.Changed); ok && c.Member.Health == control.Silent {
			silent++
		}
	}
	if silent > 3 { // five frames in a row get lost now and then
		t.Errorf("%d times silent", silent)
	}
	if n := l.Counters().Heartbeats; n < uint64(2*sender.DefaultChain)*8/10 {
		t.Errorf("%d heartbeats taken", n)
	}
}

func TestMessages(t *testing.T) {
	l := newListener(t, begin)
	leader := newSpeaker(t, controltest.Identity("d1", control.Director, true, addr2, begin), 2, begin)
	s := server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(time.Second), []*listener{l}, []*speaker{leader, s}, nil)
	long := bytes.Repeat([]byte("slots "), 40_000)
	must(t, leader.Message(now, control.KindAnnounce, long))
	must(t, s.Message(now, control.KindPrepared, []byte("ready")))
	must(t, s.Message(now, control.KindAnnounce, []byte("I lead")))
	must(t, leader.Message(now, control.KindPrepared, []byte("so do I")))
	must(t, s.Message(now, 77, []byte("news from the future")))
	random := rand.New(rand.NewPCG(3, 4))
	run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{leader, s}, func(*speaker) bool { return random.IntN(100) == 0 })
	if got := l.received(control.KindAnnounce); len(got) != 1 || got[0] != string(long) {
		t.Errorf("%d announcements", len(got))
	}
	if got := l.received(control.KindPrepared); !slices.Equal(got, []string{"ready"}) {
		t.Errorf("prepared: %q", got)
	}
	if n := refusals(l); n[members.NotAllowed] == 0 || n[members.Version] == 0 {
		t.Errorf("refused %v", n)
	}
	if err := s.Message(now, control.KindDone, make([]byte, wire.MaxMessage)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("message of more than a mebibyte: %v", err)
	}
}

// TestOutsider has the frames of the channel, and no key of it.
func TestOutsider(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	said, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	outsider := server(t, "s9", addr1, 9)
	outsider.SetKey(controltest.Key(9))
	frames, _, _ := outsider.Tick(now, now)
	for _, f := range frames {
		if err := l.frame(now, s, f); !errors.Is(err, members.NoKey) {
			t.Errorf("under a key of its own: %v", err)
		}
	}
	before := l.member("s1")
	for i, raw := range said {
		for bit := range len(raw) * 8 {
			forged := bytes.Clone(raw)
			forged[bit/8] ^= 1 << (bit % 8)
			if err := l.frame(now, s, forged); err == nil {
				t.Fatalf("frame %d with bit %d changed was taken", i, bit)
			}
		}
		for n := range raw {
			if l.frame(now, s, raw[:n]) == nil {
				t.Fatalf("frame %d of %d bytes was taken", i, n)
			}
		}
		if i == 3 {
			break
		}
	}
	later := now.Add(10 * time.Second)
	l.events = nil
	for _, raw := range said {
		l.frame(later, s, raw)
	}
	if m := l.member("s1"); m.Heard != before.Heard || m.Boot != before.Boot || len(l.events) > 1 {
		t.Errorf("replayed frames count: heard %v, was %v; %d events", m.Heard, before.Heard, len(l.events))
	}
}

// TestReplayAfterRestart plays all of the past to somebody who has just begun to listen, and to one who knows from before.
func TestReplayAfterRestart(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	said, now := run(t, begin, begin.Add(3*time.Second), []*listener{l}, []*speaker{s}, nil)
	known := l.Known()
	if len(known) != 1 || known[0].Stamp == 0 {
		t.Fatalf("known: %+v", known)
	}
	for _, from := range [][]members.Known{nil, known} {
		l := newListener(t, now)
		l.Restore(now, from)
		for _, raw := range said {
			l.frame(now.Add(time.Millisecond), s, raw)
		}
		for _, m := range l.Members.Members() {
			if m.Health == control.Available {
				t.Errorf("replayed into life: %+v", m)
			}
		}
		if refusals(l)[members.NotTimely] == 0 {
			t.Errorf("refused %v", refusals(l))
		}
	}
	// The first life's frames come again after a second one has begun.
	again := server(t, "s1", addr1, 2)
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{again}, nil)
	boot := l.member("s1").Boot
	for _, raw := range said {
		l.frame(now, s, raw)
	}
	if l.member("s1").Boot != boot || boot != 2 || refusals(l)[members.StaleBoot] == 0 {
		t.Errorf("boot %d then %d, refused %v", boot, l.member("s1").Boot, refusals(l))
	}
}

// TestInsider has the group's key and a certificate of its own, and pretends to be s1.
func TestInsider(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	key, heard := controltest.Key(1), l.member("s1").Heard
	now = now.Add(20 * time.Millisecond)
	frame := wire.Frame{Type: wire.Heartbeat, Sender: s.id.ID(), Boot: 1, Sequence: 45}
	if err := l.frame(now, s, frame.Seal(nil, key)); !errors.Is(err, members.BadChain) {
		t.Errorf("heartbeat in another's name: %v", err)
	}
	turned := controltest.Identity("s2", control.Server, false, addr2, begin)
	o := wire.Origin{Group: controltest.Group, Sender: s.id.ID(), Boot: 1, Number: 1000}
	signed, err := wire.Message{Kind: control.KindCeased, Body: []byte("me")}.Sign(o, turned.Private)
	must(t, err)
	frames, err := wire.Split(o, signed, 1200, key)
	must(t, err)
	if err := l.frame(now, s, frames[0]); !errors.Is(err, members.BadSignature) {
		t.Errorf("message in another's name: %v", err)
	}
	// A certificate that it made for itself.
	rogue, err := identity.NewAuthority()
	must(t, err)
	own, err := identity.New(rogue, identity.Certificate{Name: "s1", Role: control.Server, Address: addr1, NotBefore: begin, NotAfter: begin.Add(time.Hour)})
	must(t, err)
	liar := newSpeaker(t, own, 7, now)
	said, _, err := liar.Tick(now, now)
	must(t, err)
	if err := l.frame(now, liar, said[0]); !errors.Is(err, members.BadCertificate) {
		t.Errorf("certificate of its own: %v", err)
	}
	// Its own good certificate, by another's address.
	liar = newSpeaker(t, turned, 7, now)
	said, _, err = liar.Tick(now, now)
	must(t, err)
	if _, err := l.Frame(now, now, "eth0", addr1, said[0]); !errors.Is(err, members.WrongSource) {
		t.Errorf("by another's address: %v", err)
	}
	if m := l.member("s1"); m.Heard != heard {
		t.Errorf("s1 was heard at %v, and now at %v", heard, m.Heard)
	}
	// None of that keeps s1 from being heard.
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{s}, nil)
	if m := l.member("s1"); m.Health != control.Available || now.Sub(m.Heard) > 100*time.Millisecond {
		t.Errorf("%+v", m)
	}
}

func TestKeyRollsAndExpels(t *testing.T) {
	l, s, expelled := newListener(t, begin), server(t, "s1", addr1, 1), server(t, "s2", addr2, 2)
	both := []*speaker{s, expelled}
	_, now := run(t, begin, begin.Add(time.Second), []*listener{l}, both, nil)
	l.SetKeys([]*wire.Key{controltest.Key(1), controltest.Key(2)})
	s.SetKey(controltest.Key(2))
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, both, nil)
	if l.member("s1").Health != control.Available || l.member("s2").Health != control.Available {
		t.Error("somebody is missing while keys overlap")
	}
	l.SetKeys([]*wire.Key{controltest.Key(2)})
	run(t, now, now.Add(time.Second), []*listener{l}, both, nil)
	if l.member("s1").Health != control.Available || l.member("s2").Health != control.Silent {
		t.Errorf("s1 %v, s2 %v", l.member("s1").Health, l.member("s2").Health)
	}
}

// The sender's clock jumps by hours, both ways, while it lives; only who has never heard it minds.
func TestClockJump(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	for _, skew := range []time.Duration{5 * time.Hour, -5 * time.Hour} {
		s.skew = skew
		l.events = nil
		_, now = run(t, now, now.Add(3*time.Second), []*listener{l}, []*speaker{s}, nil)
		for _, e := range l.events {
			if m := e.(control.Changed).Member; m.Health != control.Available {
				t.Errorf("clock off by %v: %v", skew, m.Health)
			}
		}
	}
	stranger := newListener(t, now)
	run(t, now, now.Add(2*time.Second), []*listener{stranger}, []*speaker{s}, nil)
	if n := refusals(stranger); len(stranger.Members.Members()) != 0 || n[members.NotTimely] == 0 {
		t.Errorf("a stranger took it: %v", n)
	}
}

func TestOwnStall(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	l.events = nil
	now = now.Add(3 * time.Second) // stopped; s1's frames wait in the socket
	if events := l.Tick(now); len(events) != 0 {
		t.Errorf("silent, though it was we who stood still: %+v", events)
	}
	if l.Deaf(now) {
		t.Error("deaf at once")
	}
	run(t, now, now.Add(time.Second), []*listener{l}, nil, nil)
	if l.member("s1").Health != control.Silent {
		t.Error("never silent")
	}
}

func TestUnwellAndPause(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	application := 0.5
	s.SetStatus(now, control.Status{Why: "no answer", Loads: map[string]alloc.Load{"web": {CPU: 7, Application: &application}}})
	_, now = run(t, now, now.Add(20*time.Millisecond), []*listener{l}, []*speaker{s}, nil)
	if m := l.member("s1"); m.Health != control.Unwell || m.Why != "no answer" || m.Loads["web"].CPU != 1 || *m.Loads["web"].Application != 0.5 {
		t.Errorf("%+v", m)
	}
	s.SetStatus(now, control.Status{OK: true})
	s.Pause(now, 5*time.Second)
	_, now = run(t, now, now.Add(20*time.Millisecond), []*listener{l}, []*speaker{s}, nil)
	if m := l.member("s1"); m.Health != control.Available {
		t.Errorf("%+v", m)
	}
	_, now = run(t, now, now.Add(4900*time.Millisecond), []*listener{l}, nil, nil)
	if m := l.member("s1"); m.Health != control.Available {
		t.Errorf("silent within its pause: %+v", m)
	}
	run(t, now, now.Add(400*time.Millisecond), []*listener{l}, nil, nil)
	if m := l.member("s1"); m.Health != control.Silent {
		t.Errorf("available after its pause: %+v", m)
	}
}

// TestPauseEndsWithTheRestart: who is back before its pause is over is silent as soon as anybody else then.
func TestPauseEndsWithTheRestart(t *testing.T) {
	id := controltest.Identity("s1", control.Server, false, addr1, begin)
	l, former := newListener(t, begin), newSpeaker(t, id, 1, begin)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{former}, nil)
	former.Pause(now, 5*time.Second)
	_, now = run(t, now, now.Add(20*time.Millisecond), []*listener{l}, []*speaker{former}, nil)
	_, now = run(t, now, now.Add(500*time.Millisecond), []*listener{l}, nil, nil)
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{newSpeaker(t, id, 2, now)}, nil)
	if m := l.member("s1"); m.Boot != 2 || m.Health != control.Available {
		t.Fatalf("after its restart: %+v", m)
	}
	run(t, now, now.Add(300*time.Millisecond), []*listener{l}, nil, nil)
	if m := l.member("s1"); m.Health != control.Silent {
		t.Errorf("300 ms after its end: %+v", m)
	}
}

// TestReportsOvertakeEachOther: the latest one counts, whichever comes last. A report on its way when its sender says that it pauses does
// not take that back.
func TestReportsOvertakeEachOther(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	report := func(change func()) [][]byte {
		t.Helper()
		change()
		frames, _, err := s.Tick(now, now)
		if err != nil || len(frames) == 0 {
			t.Fatalf("%d frames, %v", len(frames), err)
		}
		return frames
	}
	first := report(func() { s.SetStatus(now, control.Status{Why: "warming up"}) })
	second := report(func() { s.SetStatus(now, control.Status{OK: true}); s.Pause(now, 5*time.Second) })
	for _, f := range append(second, first...) {
		if err := l.frame(now, s, f); err != nil {
			t.Fatal(err)
		}
	}
	run(t, now, now.Add(time.Second), []*listener{l}, nil, nil)
	if m := l.member("s1"); m.Health != control.Available || m.Why != "" {
		t.Errorf("in its pause: %+v", m)
	}
}

func TestRestored(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	l.Restore(begin, []members.Known{{Name: "s1", Role: control.Server, Address: addr1}, {Name: "s2", Role: control.Server, Address: addr2}})
	_, now := run(t, begin, begin.Add(3*time.Second), []*listener{l}, []*speaker{s}, nil)
	if a, b := l.member("s1").Health, l.member("s2").Health; a != control.Available || b != control.Unknown {
		t.Errorf("after 3 s: s1 %v, s2 %v", a, b)
	}
	run(t, now, now.Add(6*time.Second), []*listener{l}, []*speaker{s}, nil)
	if b := l.member("s2").Health; b != control.Silent {
		t.Errorf("after 9 s: s2 %v", b)
	}
}

// Who was silent before a restart is, until it is heard.
func TestRestoredSilence(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(time.Second), []*listener{l}, []*speaker{s}, nil)
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, nil, nil)
	again := newListener(t, now)
	again.Restore(now, l.Known())
	if m := again.member("s1"); m.Health != control.Silent {
		t.Errorf("after the restart: %+v", m)
	}
	run(t, now, now.Add(time.Second), []*listener{again}, []*speaker{newSpeaker(t, s.id, 2, now)}, nil)
	if m := again.member("s1"); m.Health != control.Available {
		t.Errorf("heard: %+v", m)
	}
}

// A renewed certificate is the same member.
func TestRenewedCertificate(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(time.Second), []*listener{l}, []*speaker{s}, nil)
	renewed := newSpeaker(t, controltest.Identity("s1", control.Server, true, addr1, begin.Add(time.Minute)), 2, now)
	_, now = run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{renewed}, nil)
	if all := l.Members.Members(); len(all) != 1 || !all[0].Leader || all[0].Boot != 2 {
		t.Errorf("%+v", all)
	}
	run(t, now, now.Add(time.Second), []*listener{l}, []*speaker{renewed}, nil)
	for _, e := range l.events {
		if m := e.(control.Changed).Member; m.Health == control.Silent {
			t.Errorf("%+v", m)
		}
	}
}

// few is how many are enough in the race run, where each takes ten times as long.
func few(all, short int) int {
	if testing.Short() {
		return short
	}
	return all
}

// A thousand begin within a tenth of a second: all are known within half a second, and what they say of themselves to make themselves known
// stays few reports each, and ends.
func TestThousandAtOnce(t *testing.T) {
	count := few(1000, 100)
	l := newListener(t, begin)
	met := map[uint64]bool{}
	var all []*speaker
	for i := range count {
		address := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		at := begin.Add(time.Duration(i%20) * 5 * time.Millisecond)
		all = append(all, newSpeaker(t, controltest.Identity(fmt.Sprint("s", i), control.Server, false, address, begin), uint64(i+1), at))
	}
	var now time.Time
	meet := func() { // as everybody does whenever somebody is new
		for _, e := range l.events {
			if c, ok := e.(control.Changed); ok && !met[c.Member.Boot] {
				met[c.Member.Boot] = true
				for _, s := range all {
					s.Met(now, float64(c.Member.Boot%100)/100)
				}
			}
		}
		l.events = nil
	}
	for now = begin; now.Before(begin.Add(500 * time.Millisecond)); now = now.Add(5 * time.Millisecond) {
		run(t, now, now.Add(5*time.Millisecond), []*listener{l}, all, nil)
		meet()
	}
	if n := len(l.Members.Members()); n != count {
		t.Fatalf("%d members after %v", n, now.Sub(begin))
	}
	_, now = run(t, now, begin.Add(2*time.Second), []*listener{l}, all, nil)
	meet()
	if n := l.Counters().Messages; n > uint64(14*count) {
		t.Errorf("%d reports in the first two seconds", n)
	}
	before := l.Counters().Messages
	_, now = run(t, now, now.Add(5*time.Second), []*listener{l}, all, nil)
	if n := l.Counters().Messages - before; n < uint64(4*count) || n > uint64(6*count) {
		t.Errorf("%d reports in five seconds", n)
	}
	l.events = nil
	run(t, now, now.Add(400*time.Millisecond), []*listener{l}, all[:count-10], nil)
	silent := 0
	for _, m := range l.Members.Members() {
		if m.Health == control.Silent {
			silent++
		}
	}
	if silent != 10 {
		t.Errorf("%d silent, want 10", silent)
	}
}

// TestFlood: a member that turns and sends messages in another's name by its own link makes little work, and takes nothing from the one
// who is heard by another.
func TestFlood(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
	turned, n := controltest.Identity("s2", control.Server, false, addr2, begin), uint64(0)
	signed, err := wire.Message{Kind: control.KindCeased, Body: []byte("me")}.Sign(wire.Origin{}, turned.Private)
	must(t, err)
	seconds := few(10, 1)
	for range 100 * seconds { // 10,000 a second
		for range 100 {
			n++
			frame := wire.Frame{Type: wire.Part, Sender: s.id.ID(), Boot: 1, Sequence: 1000 + n, Parts: 1, Bytes: signed}
			l.Frame(now, now, "eth9", addr1, frame.Seal(nil, controltest.Key(1)))
		}
		_, now = run(t, now, now.Add(10*time.Millisecond), []*listener{l}, []*speaker{s}, nil)
	}
	if m := l.member("s1"); m.Health != control.Available || now.Sub(m.Heard) > 100*time.Millisecond {
		t.Errorf("%+v", m)
	}
	if r := refusals(l); r[members.BadSignature] > uint64(1000+100*seconds) || r[members.RateLimited] < uint64(9000*seconds) {
		t.Errorf("refused %v: want few to be verified", r)
	}
}

// A frame that is kept and sent again later shows no way to its sender.
func TestLateCopyShowsNoWay(t *testing.T) {
	for _, late := range []time.Duration{0, 100 * time.Millisecond} {
		l, s := newListener(t, begin), server(t, "s1", addr1, 1)
		said, now := run(t, begin, begin.Add(2*time.Second), []*listener{l}, []*speaker{s}, nil)
		l.Frame(now.Add(late), now.Add(late), "eth9", addr1, said[len(said)-1])
		if via := l.member("s1").Via; slices.Contains(via, "eth9") != (late == 0) {
			t.Errorf("a copy %v late: via %v", late, via)
		}
	}
}

// TestForgotten: who has been silent for a day is nobody any more, and that is said.
func TestForgotten(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	_, now := run(t, begin, begin.Add(time.Second), []*listener{l}, []*speaker{s}, nil)
	l.events = nil
	for end := now.Add(25 * time.Hour); now.Before(end); now = now.Add(50 * time.Millisecond) {
		if now.Sub(begin) > 2*time.Second {
			now = now.Add(time.Minute)
		}
		l.events = append(l.events, l.Tick(now)...)
	}
	last := l.events[len(l.events)-1].(control.Changed).Member
	if last.Name != "s1" || last.Health != control.Unknown || len(l.Members.Members()) != 0 {
		t.Errorf("%+v, and %d members are known", last, len(l.Members.Members()))
	}
}

// TestTablesOfPartsCount: the places of parts to come are part of what incomplete messages take.
func TestTablesOfPartsCount(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	now := begin.Add(time.Second)
	for n := range 1024 {
		id := s.id.ID()
		id[0], id[1] = byte(n), byte(n>>8)
		frame := wire.Frame{Type: wire.Part, Sender: id, Boot: 1, Sequence: 1, Parts: wire.MaxParts, Bytes: []byte("x")}
		l.Frame(now, now, "eth0", addr1, frame.Seal(nil, controltest.Key(1)))
	}
	if want := uint64(1024 - (16<<20)/(24*wire.MaxParts)); refusals(l)[members.Full] < want {
		t.Errorf("refused %v, want %d that there is no room for", refusals(l), want)
	}
}

// More than there is room for come at once, with unfinished messages besides: the state stays within its bounds, and who is known stays known.
func TestMoreThanThereIsRoomFor(t *testing.T) {
	m := members.New(members.Config{Group: controltest.Group, Authority: controltest.Authority().Public(), Started: begin, Members: few(100, 20)})
	m.SetKeys([]*wire.Key{controltest.Key(1)})
	l := &listener{t: t, Members: m}
	c := newCrowd(t, few(300, 60))
	run(t, begin, begin.Add(time.Second), []*listener{l}, c.all, nil)
	first := l.Members.Members()
	if len(first) != few(100, 20) || refusals(l)[members.Full] == 0 {
		t.Fatalf("%d members, refused %v", len(first), refusals(l))
	}
	now := begin.Add(time.Second)
	for _, s := range c.all {
		for range 20 {
			must(t, s.Message(now, control.KindDone, make([]byte, 5000)))
		}
	}
	run(t, now, now.Add(time.Second), []*listener{l}, c.all, nil)
	for i, p := range l.Members.Members() {
		if p.Name != first[i].Name || p.Health != control.Available {
			t.Errorf("%s is %v, and was there before: %v", p.Name, p.Health, p.Name == first[i].Name)
		}
	}
}

// A newer release says more than this one understands: what this one knows of it counts, the rest is counted, and nobody is worse off.
func TestVersionSkew(t *testing.T) {
	l, s := newListener(t, begin), server(t, "s1", addr1, 1)
	newer := controltest.Identity("s2", control.Server, false, addr2, begin)
	say := func(number uint64, kind control.Kind, body []byte) error {
		o := wire.Origin{Group: controltest.Group, Sender: newer.ID(), Boot: 9, Number: number}
		m := wire.Message{Kind: kind, Body: body}
		if kind == control.KindReport {
			m.Certificate = newer.Raw()
		}
		signed, err := m.Sign(o, newer.Private)
		must(t, err)
		frames, err := wire.Split(o, signed, 1200, controltest.Key(1))
		must(t, err)
		return l.frame(begin, &speaker{id: newer}, frames[0])
	}
	chain := &controlv1.Chain{Salt: make([]byte, 16), Index: 1, Element: make([]byte, 16)}
	body, err := proto.Marshal(&controlv1.Report{TimeUnixNano: begin.UnixNano(), Chain: chain, Health: 42})
	must(t, err)
	body = protowire.AppendTag(body, 1000, protowire.BytesType)
	body = protowire.AppendBytes(body, []byte("what nobody knows yet"))
	if err := say(1, control.KindReport, body); err != nil {
		t.Errorf("report with a field more: %v", err)
	}
	if m := l.member("s2"); m.Boot != 9 || m.Health != control.Unwell { // a health that is not known is no good one
		t.Errorf("%+v", m)
	}
	if err := say(2, 200, nil); !errors.Is(err, members.Version) {
		t.Errorf("kind 200: %v", err)
	}
	for what, at := range map[string]int{"version": 2, "type": 3} {
		frame := wire.Frame{Type: wire.Heartbeat, Sender: newer.ID(), Boot: 9, Sequence: 7}.Seal(nil, controltest.Key(1))
		frame[at] = 9
		if err := l.frame(begin, &speaker{id: newer}, frame); !errors.Is(err, members.Version) {
			t.Errorf("frame of another %s: %v", what, err)
		}
	}
	if n := refusals(l); n[members.Version] != 3 || len(n) != 1 {
		t.Errorf("refused %v", n)
	}
	run(t, begin, begin.Add(time.Second), []*listener{l}, []*speaker{s}, nil)
	if m := l.member("s1"); m.Health != control.Available {
		t.Errorf("s1 is %v", m.Health)
	}
	if err := say(3, control.KindDone, []byte("still heard")); err != nil || len(l.received(control.KindDone)) != 1 {
		t.Errorf("what both know: %v", err)
	}
}

// Whatever is lost, doubled and reordered: messages come at most once, as they were sent, and heartbeats never go back.
func TestUnreliableNetwork(t *testing.T) {
	for seed := range uint64(few(20, 3)) {
		random := rand.New(rand.NewPCG(seed, 99))
		l, s := newListener(t, begin), server(t, "s1", addr1, 1)
		type waiting struct {
			at  time.Time
			raw []byte
		}
		var net []waiting
		sent := map[string]bool{}
		for now := begin; now.Before(begin.Add(20 * time.Second)); now = now.Add(5 * time.Millisecond) {
			if random.IntN(20) == 0 {
				body := fmt.Sprint(now.UnixNano(), string(make([]byte, random.IntN(3000))))
				sent[body] = true
				must(t, s.Message(now, control.KindDone, []byte(body)))
			}
			frames, _, err := s.Tick(now, now)
			must(t, err)
			for _, f := range frames {
				for n := []int{0, 1, 1, 1, 1, 1, 1, 1, 1, 2}[random.IntN(10)]; n > 0; n-- {
					net = append(net, waiting{now.Add(time.Duration(random.IntN(60)) * time.Millisecond), f})
				}
			}
			for i := 0; i < len(net); i++ {
				if !net[i].at.After(now) {
					l.frame(now, s, net[i].raw)
					net = slices.Delete(net, i, i+1)
					i--
				}
			}
			l.events = append(l.events, l.Tick(now)...)
		}
		got := l.received(control.KindDone)
		seen := map[string]bool{}
		for _, body := range got {
			if !sent[body] || seen[body] {
				t.Fatalf("seed %d: a message that was not sent, or twice", seed)
			}
			seen[body] = true
		}
		if len(got) < len(sent)*8/10 {
			t.Errorf("seed %d: %d of %d messages", seed, len(got), len(sent))
		}
	}
}

func FuzzFrame(f *testing.F) {
	s := server(f, "s1", addr1, 1)
	frames, _, err := s.Tick(begin, begin)
	must(f, err)
	for _, raw := range frames {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := newListener(t, begin)
		l.frame(begin, s, raw)
		// The same by an insider, whose MAC is good.
		frame, err := wire.Parse(raw)
		if err == nil {
			l.frame(begin, s, frame.Seal(nil, controltest.Key(1)))
		}
		l.Tick(begin.Add(time.Second))
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
