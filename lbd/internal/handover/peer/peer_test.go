package peer_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/control/identity"

	"github.com/manycast/manycast/lbd/internal/handover"
	"github.com/manycast/manycast/lbd/internal/handover/peer"
	handoverv1 "github.com/manycast/manycast/proto/handover/v1"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var operator = identity.Authority{Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))}

func certified(t testing.TB, a identity.Authority, name string, role control.Role) identity.Identity {
	t.Helper()
	id, err := identity.New(a, identity.Certificate{
		Name: name, Role: role, Address: netip.MustParseAddr("127.0.0.1"), NotBefore: begin, NotAfter: begin.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func config(t testing.TB, name string) peer.Config {
	return peer.Config{
		Identity: certified(t, operator, name, control.Server), Authority: operator.Public(), Boot: uint64(len(name)),
		Now: func() time.Time { return begin.Add(time.Minute) },
	}
}

// port is a listener at work, with what it took and what it refused.
type port struct {
	address string
	links   chan *peer.Link
	refused chan error
}

func listen(t testing.TB, cfg peer.Config) port {
	t.Helper()
	l, err := peer.Listen("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := port{l.Addr().String(), make(chan *peer.Link, 100), make(chan error, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- l.Serve(ctx, func(ctx context.Context, link *peer.Link) {
			p.links <- link
			select {
			case <-ctx.Done():
			case <-link.Down():
			}
		}, func(_ netip.AddrPort, err error) { p.refused <- err })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

// pair is both ends of a link: of s1, who dialled, and of s2.
func pair(t testing.TB, dialer, listener peer.Config) (giver, taker *peer.Link) {
	t.Helper()
	p := listen(t, listener)
	giver, err := peer.Dial(t.Context(), p.address, "s2", dialer)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { giver.Close() })
	return giver, <-p.links
}

func transfer(n uint64) handover.ID { return handover.ID{Giver: "s1", Boot: 2, Number: n} }

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

func receive(t testing.TB, l *peer.Link) handover.Message {
	t.Helper()
	m, err := l.Receive()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBothKnowEachOther(t *testing.T) {
	giver, taker := pair(t, config(t, "s1"), config(t, "s2"))
	if giver.Peer != (peer.Peer{Name: "s2", Boot: 2}) || taker.Peer != (peer.Peer{Name: "s1", Boot: 2}) {
		t.Errorf("the giver sees %+v, the taker %+v", giver.Peer, taker.Peer)
	}
	if err := giver.Send(handover.Ready{ID: transfer(1)}, handover.Took{ID: transfer(2)}); err != nil {
		t.Fatal(err)
	}
	if m := receive(t, taker); m != (handover.Ready{ID: transfer(1)}) {
		t.Errorf("first came %+v", m)
	}
	if m := receive(t, taker); m != (handover.Took{ID: transfer(2)}) {
		t.Errorf("then came %+v", m)
	}
}

// TestLargeStatesGiveWay sends two large states, and small ones and messages after them: all come whole, the small ones first.
func TestLargeStatesGiveWay(t *testing.T) {
	giver, taker := pair(t, config(t, "s1"), config(t, "s2"))
	large := []handover.State{
		{ID: transfer(1), Kernel: pattern(5 << 20), Application: pattern(100_001)},
		{ID: transfer(2), Kernel: pattern(64 << 10), Application: pattern(1)},
	}
	small := handover.State{ID: transfer(3), Kernel: pattern(500), Application: pattern(20)}
	if err := giver.Send(large[0], large[1], small, handover.Cancel{ID: transfer(4)}); err != nil {
		t.Fatal(err)
	}
	var order []uint64
	coming := 0
	for len(order) < 4 {
		switch m := receive(t, taker).(type) {
		case handover.Coming:
			coming++
		case handover.Cancel:
			order = append(order, m.ID.Number)
		case handover.State:
			want := small
			if m.ID.Number < 3 {
				want = large[m.ID.Number-1]
			}
			if !bytes.Equal(m.Kernel, want.Kernel) || !bytes.Equal(m.Application, want.Application) {
				t.Errorf("state %d came otherwise: %d and %d bytes", m.ID.Number, len(m.Kernel), len(m.Application))
			}
			order = append(order, m.ID.Number)
		}
	}
	if order[0] != 3 || order[1] != 4 || order[2] != 1 || order[3] != 2 || coming < 80 {
		t.Errorf("came in order %v, with %d parts told", order, coming)
	}
}

func TestEmptyState(t *testing.T) {
	giver, taker := pair(t, config(t, "s1"), config(t, "s2"))
	giver.Send(handover.State{ID: transfer(1)})
	if s, ok := receive(t, taker).(handover.State); !ok || s.ID != transfer(1) || len(s.Kernel)+len(s.Application) > 0 {
		t.Errorf("came %+v", s)
	}
}

func TestTurnedDown(t *testing.T) {
	other := identity.Authority{Private: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))}
	for _, c := range []struct {
		what           string
		dialer         func(*peer.Config)
		listener       func(*peer.Config)
		called         string
		dialed, served error // nil: that end finds nothing wrong by itself
	}{
		{what: "dialer of another authority", dialer: func(c *peer.Config) { c.Identity = certified(t, other, "s1", control.Server) },
			dialed: peer.ErrRefused, served: identity.ErrSignature},
		{what: "listener of another authority", listener: func(c *peer.Config) { c.Identity = certified(t, other, "s2", control.Server) },
			dialed: identity.ErrSignature},
		{what: "expired", listener: func(c *peer.Config) { c.Now = func() time.Time { return begin.Add(2 * time.Hour) } },
			dialed: peer.ErrRefused, served: identity.ErrExpired},
		{what: "router dials", dialer: func(c *peer.Config) { c.Identity = certified(t, operator, "s1", control.Router) },
			dialed: peer.ErrRefused, served: peer.ErrRole},
		{what: "router answers", listener: func(c *peer.Config) { c.Identity = certified(t, operator, "s2", control.Router) },
			dialed: peer.ErrRole},
		{what: "stolen certificate", dialer: func(c *peer.Config) {
			c.Identity.Certificate = certified(t, operator, "s1", control.Server).Certificate
		}, dialed: peer.ErrRefused, served: peer.ErrKey},
		{what: "stolen certificate at the port", listener: func(c *peer.Config) {
			c.Identity.Certificate = certified(t, operator, "s2", control.Server).Certificate
		}, dialed: peer.ErrKey},
		{what: "somebody else answers", called: "s3", dialed: peer.ErrName},
		{what: "oneself answers", listener: func(c *peer.Config) { c.Identity = certified(t, operator, "s1", control.Server) },
			dialed: peer.ErrName, served: peer.ErrName},
		{what: "newer dialer", dialer: func(c *peer.Config) { c.Version = 9 }, dialed: peer.ErrVersion, served: peer.ErrVersion},
		{what: "newer listener", listener: func(c *peer.Config) { c.Version = 9 }, dialed: peer.ErrVersion, served: peer.ErrVersion},
	} {
		t.Run(c.what, func(t *testing.T) {
			dialer, listener := config(t, "s1"), config(t, "s2")
			if c.dialer != nil {
				c.dialer(&dialer)
			}
			if c.listener != nil {
				c.listener(&listener)
			}
			if c.called == "" {
				c.called = "s2"
			}
			p := listen(t, listener)
			_, err := peer.Dial(t.Context(), p.address, c.called, dialer)
			if !errors.Is(err, c.dialed) || !strings.Contains(err.Error(), c.called) {
				t.Errorf("the dialer says %v", err)
			}
			if c.served != nil {
				served := <-p.refused
				if !errors.Is(served, c.served) {
					t.Errorf("the listener says %v", served)
				}
				if errors.Is(c.served, peer.ErrVersion) {
					for _, err := range []error{err, served} {
						if !strings.Contains(err.Error(), "version 9") || !strings.Contains(err.Error(), "version 1") {
							t.Errorf("%v does not name both versions", err)
						}
					}
				}
				return
			}
			link := <-p.links // until the dialer's word
			if m, err := link.Receive(); !errors.Is(err, peer.ErrRefused) || !strings.Contains(err.Error(), "s1") {
				t.Errorf("the listener's link says %v, %v", m, err)
			}
		})
	}
}

// raw is a TLS connection to a port, on which nothing was said yet.
func raw(t *testing.T, address string, cfg peer.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, peer.Session(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.NetConn().Close() })
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func frame(size int, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(size)), body...)
}

func TestStrangersGetLittle(t *testing.T) {
	for what, bytes := range map[string][]byte{
		"large Hello": frame(64<<10, nil), "huge Hello": frame(1<<31, nil), "garbage": []byte("GET / HTTP/1.1\r\n\r\n"), "no Hello": frame(0, nil),
		"garbage in a frame": frame(3, []byte{0xff, 0xff, 0xff}),
	} {
		t.Run(what, func(t *testing.T) {
			p := listen(t, config(t, "s2"))
			if _, err := raw(t, p.address, config(t, "s1")).Write(bytes); err != nil {
				t.Fatal(err)
			}
			if err := <-p.refused; !errors.Is(err, peer.ErrFrame) {
				t.Errorf("refused with %v", err)
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		p := listen(t, config(t, "s2"))
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if err := <-p.refused; err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("refused with %v", err)
		}
	})
	t.Run("no certificate, old TLS", func(t *testing.T) {
		p := listen(t, config(t, "s2"))
		for _, c := range []*tls.Config{
			{InsecureSkipVerify: true, NextProtos: []string{"manycast-handover"}}, {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
		} {
			if conn, err := tls.Dial("tcp", p.address, c); err == nil {
				conn.Read(make([]byte, 1))
				conn.Close()
			}
			if err := <-p.refused; err == nil {
				t.Error("taken")
			}
		}
	})
}

// TestSlowStrangers keeps connections open without a word: they are closed, and do not keep a server of another address, or one that
// comes later, from its link.
func TestSlowStrangers(t *testing.T) {
	cfg := config(t, "s2")
	cfg.Strangers, cfg.Handshake = 2, 300*time.Millisecond
	p := listen(t, cfg)
	for range 3 {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if err := <-p.refused; !errors.Is(err, peer.ErrBusy) {
		t.Errorf("the third was refused with %v", err)
	}
	for range 2 {
		if err := <-p.refused; err == nil || errors.Is(err, peer.ErrBusy) {
			t.Errorf("a slow one was refused with %v", err)
		}
	}
	if l, err := peer.Dial(t.Context(), p.address, "s2", config(t, "s1")); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

func TestNumberOfLinks(t *testing.T) {
	cfg := config(t, "s2")
	cfg.Links = 1
	p := listen(t, cfg)
	first, err := peer.Dial(t.Context(), p.address, "s2", config(t, "s1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peer.Dial(t.Context(), p.address, "s2", config(t, "s3")); err == nil {
		t.Error("a second link was taken")
	}
	if err := <-p.refused; !errors.Is(err, peer.ErrBusy) {
		t.Errorf("refused with %v", err)
	}
	first.Close()
	<-(<-p.links).Down()
}

// TestBadPeer breaks rules after Hello: the link goes down, and says why.
func TestBadPeer(t *testing.T) {
	part := func(id uint64, kernel uint32, data int) []byte {
		return peer.PartFrame(t, transfer(id), kernel, 0, pattern(data))
	}
	for what, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"large frame":         {frame(128<<10, nil), peer.ErrFrame},
		"truncated":           {frame(100, []byte{1, 2, 3}), peer.ErrFrame},
		"truncated length":    {[]byte{0, 0}, peer.ErrFrame},
		"garbage":             {frame(3, []byte{0xff, 0xff, 0xff}), peer.ErrFrame},
		"empty":               {frame(0, nil), handover.ErrMalformed},
		"of a newer version":  {peer.NewerFrame(t, &handoverv1.Message{}), handover.ErrMalformed},
		"absurd state":        {part(1, 1<<31, 10), peer.ErrFrame},
		"parts of two":        {append(part(1, 100, 10), part(2, 100, 10)...), peer.ErrFrame},
		"another size":        {append(part(1, 100, 10), part(1, 101, 10)...), peer.ErrFrame},
		"more than there was": {append(part(1, 100, 60), part(1, 100, 60)...), peer.ErrFrame},
		"empty part":          {part(1, 100, 0), peer.ErrFrame},
		"large part":          {part(1, 70_000, 65_600), peer.ErrFrame},
	} {
		t.Run(what, func(t *testing.T) {
			p := listen(t, config(t, "s2"))
			cfg := config(t, "s1")
			conn := raw(t, p.address, cfg)
			conn.Write(peer.HelloFrame(t, cfg))
			link := <-p.links
			conn.Write(c.bytes)
			conn.CloseWrite()
			for {
				if _, err := link.Receive(); err != nil {
					if !errors.Is(err, c.want) || !errors.Is(err, peer.ErrDown) || !strings.Contains(err.Error(), "s1") {
						t.Errorf("the link says %v", err)
					}
					break
				}
			}
			if err := link.Send(handover.Ready{ID: transfer(1)}); !errors.Is(err, c.want) {
				t.Errorf("sending says %v", err)
			}
		})
	}
}

// TestNewerFields: what a newer peer adds to messages is not looked at.
func TestNewerFields(t *testing.T) {
	p := listen(t, config(t, "s2"))
	cfg := config(t, "s1")
	conn := raw(t, p.address, cfg)
	conn.Write(peer.NewerHelloFrame(t, cfg))
	link := <-p.links
	want := handover.Took{ID: transfer(3)}
	conn.Write(peer.NewerFrame(t, &handoverv1.Message{About: &handoverv1.Message_Alive{Alive: &handoverv1.Alive{}}}))
	conn.Write(peer.NewerFrame(t, handover.EncodeMessage(want)))
	if got := receive(t, link); got != want || link.Peer.Name != "s1" {
		t.Errorf("%v of %s, want %v", got, link.Peer.Name, want)
	}
}

// TestStall fills a link whose peer does not read: it goes down, and Send never waits.
func TestStall(t *testing.T) {
	cfg := config(t, "s1")
	cfg.Stall, cfg.Queue = 200*time.Millisecond, 1<<30
	giver, _ := pair(t, cfg, config(t, "s2"))
	if err := giver.Send(handover.State{ID: transfer(1), Kernel: pattern(30 << 20)}); err != nil {
		t.Fatal(err)
	}
	<-giver.Down()
	if _, err := giver.Receive(); !errors.Is(err, peer.ErrOverflow) {
		t.Errorf("the link says %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	cfg := config(t, "s1")
	cfg.Queue = 1 << 20
	giver, _ := pair(t, cfg, config(t, "s2"))
	if err := giver.Send(handover.State{ID: transfer(1), Kernel: pattern(2 << 20)}); !errors.Is(err, peer.ErrOverflow) {
		t.Errorf("sending says %v", err)
	}
	giver, _ = pair(t, config(t, "s1"), config(t, "s2"))
	if err := giver.Send(handover.State{ID: transfer(1), Kernel: make([]byte, peer.MaxKernel+1)}); !errors.Is(err, peer.ErrDown) {
		t.Errorf("sending says %v", err)
	}
}

// TestSilence: a link with nothing to say stays up, one whose peer is silent goes down.
func TestSilence(t *testing.T) {
	dialer, listener := config(t, "s1"), config(t, "s2")
	dialer.Alive, listener.Alive = 20*time.Millisecond, time.Hour
	dialer.Idle, listener.Idle = 300*time.Millisecond, 300*time.Millisecond
	giver, taker := pair(t, dialer, listener)
	heard := make(chan error, 1)
	go func() {
		_, err := taker.Receive()
		heard <- err
	}()
	if _, err := giver.Receive(); !errors.Is(err, peer.ErrDown) || !strings.Contains(err.Error(), "no word") {
		t.Errorf("the giver says %v", err)
	}
	if err := <-heard; err == nil || strings.Contains(err.Error(), "no word") {
		t.Errorf("the taker, who was spoken to, says %v", err)
	}
}

func TestClose(t *testing.T) {
	giver, taker := pair(t, config(t, "s1"), config(t, "s2"))
	giver.Close()
	if _, err := taker.Receive(); !errors.Is(err, peer.ErrDown) {
		t.Errorf("the other end says %v", err)
	}
	if _, err := giver.Receive(); !errors.Is(err, peer.ErrDown) {
		t.Errorf("this end says %v", err)
	}
	giver.Close()
}

// BenchmarkLinkRoundTrip is a small message and its answer, over TLS on loopback.
func BenchmarkLinkRoundTrip(b *testing.B) {
	giver, taker := pair(b, config(b, "s1"), config(b, "s2"))
	go func() {
		for {
			m, err := taker.Receive()
			if err != nil {
				return
			}
			taker.Send(m)
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		giver.Send(handover.Ready{ID: transfer(1)})
		receive(b, giver)
	}
}

// BenchmarkLinkStates is small states, as many as there are, in one direction.
func BenchmarkLinkStates(b *testing.B) {
	giver, taker := pair(b, config(b, "s1"), config(b, "s2"))
	s := handover.State{ID: transfer(1), Kernel: pattern(600), Application: pattern(200)}
	go func() {
		for range b.N {
			giver.Send(s)
		}
	}()
	b.ReportAllocs()
	for range b.N {
		receive(b, taker)
	}
}
