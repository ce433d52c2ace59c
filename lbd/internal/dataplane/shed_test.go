package dataplane

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fromUser is a packet that the agent sees.
func fromUser(user string, proto uint8, payload []byte) packet {
	return packet{src: user, dst: webGroup, proto: proto, payload: payload}
}

func TestNetAgentProgramSheds(t *testing.T) {
	syn := fromUser(testUser, protoTCP, segment(1000, 80, flagSYN, 7, 0, ""))
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	tests := []struct {
		name    string
		share   int
		in      packet
		verdict uint32
	}{
		{"new connection", ShedAll, syn, verdictRedirect},
		{"nobody is shed", 0, syn, verdictNext},
		{"the user is not among them", 1, syn, verdictNext},
		{"established", ShedAll, fromUser(testUser, protoTCP, segment(1000, 80, flagACK, 7, 9, "x")), verdictNext},
		{"answer to one of ours", ShedAll, fromUser(testUser, protoTCP, segment(1000, 80, flagSYN|flagACK, 7, 9, "")), verdictNext},
		{"another's user", ShedAll, fromUser(evenUser, protoTCP, segment(1000, 80, flagSYN, 7, 0, "")), verdictDrop},
		{"IP options get no answer", ShedAll, with(syn, func(p *packet) { p.options = []byte{1, 1, 1, 0} }), verdictDrop},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAgent(t, 0, agentServices(odd, even))
			if err := a.Shed(addr(webGroup), tt.share); err != nil {
				t.Fatal(err)
			}
			in := tt.in.frame()
			router := []byte{2, 0, 0, 0, 0, 254}
			copy(in[6:], router)
			verdict, out := run(t, a.coll.Programs[agentProgAgentIngress], in)
			if verdict != tt.verdict {
				t.Errorf("verdict %#x, want %#x", verdict, tt.verdict)
			}
			var own [6]byte
			if err := a.spec.Variables["own_mac"].Get(&own); err != nil || own == [6]byte{} {
				t.Fatalf("own MAC address % x, error %v", own, err)
			}
			want := answerFrame(packet{src: testVIP, dst: testUser, proto: protoTCP, payload: segment(80, 1000, flagRST|flagACK, 0, 8, "")}, own[:], router)
			if verdict == verdictRedirect && !bytes.Equal(out, want) {
				t.Errorf("frame\n% x, want\n% x", out, want)
			}
		})
	}
}

func TestNetTrafficIsCounted(t *testing.T) {
	a := newAgent(t, 1400, agentServices(odd, even))
	if err := a.Shed(addr(webGroup), ShedAll/2); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]int{webGroup: ShedAll / 2, dnsGroup: 0} {
		if share, err := a.Shedding(addr(group)); err != nil || share != want {
			t.Errorf("sheds %d of 1024 users of %s, error %v, want %d", share, group, err, want)
		}
	}
	var bytesIn, opened, refused uint64
	for last := byte(1); last != 255; last += 2 {
		frame := fromUser(netip.AddrFrom4([4]byte{10, 1, 0, last}).String(), protoTCP, segment(1000, 80, flagSYN, 7, 0, "")).frame()
		switch verdict, _ := run(t, a.coll.Programs[agentProgAgentIngress], frame); verdict {
		case verdictNext:
			opened++
			bytesIn += uint64(len(frame))
		case verdictRedirect:
			refused++
		}
	}
	if refused < 40 || refused > 87 {
		t.Errorf("%d of 127 users refused, want about half", refused)
	}
	answer := packet{src: testVIP, dst: testUser, proto: protoTCP, payload: tcpSegment(80, 1000, flagACK, nil, "hello")}.frame()
	run(t, a.coll.Programs[agentProgAgentEgress], answer)
	want := Traffic{Packets: opened + 1, Bytes: bytesIn + uint64(len(answer)), Opened: opened, Refused: refused}
	traffic, err := a.Traffic()
	if err != nil || traffic[addr(webGroup)] != want || traffic[addr(dnsGroup)] != (Traffic{}) {
		t.Errorf("counted %+v, error %v, want %+v for the web", traffic, err, want)
	}
	if c, err := a.Counters(); err != nil || c.Shed != refused {
		t.Errorf("counted %+v, error %v, want %d shed", c, err, refused)
	}

	// What stays goes on; what goes is forgotten.
	services := agentServices(odd, even)[:1]
	for range 2 {
		plans, err := compile(services, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.write(services, plans); err != nil {
			t.Fatal(err)
		}
	}
	if traffic, err := a.Traffic(); err != nil || len(traffic) != 1 || traffic[addr(webGroup)] != want {
		t.Errorf("after another Set %+v, error %v, want the web's as it was, alone", traffic, err)
	}
	if err := a.write(nil, nil); err != nil {
		t.Fatal(err)
	}
	var share uint32
	if err := a.coll.Maps[agentMapSheds].Lookup(addr(webGroup).As4(), &share); err == nil {
		t.Errorf("%d of 1024 users of a group that is gone are to be refused", share)
	}
}

// TestNetSendersAreSampled: one user sends ten times as much as another; both are about right, and asked again they are gone.
func TestNetSendersAreSampled(t *testing.T) {
	a := newAgent(t, 0, agentServices(odd, even))
	heavy, light := "10.1.0.11", "10.1.0.13"
	for user, n := range map[string]int{heavy: 10000, light: 1000} {
		frame := fromUser(user, protoTCP, tcpSegment(1000, 80, flagACK, nil, "")).frame()
		for range n {
			run(t, a.coll.Programs[agentProgAgentIngress], frame)
		}
	}
	senders, err := a.Senders()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, s := range senders[addr(webGroup)] {
		got[s.User.String()] = s.Packets
	}
	// Six standard deviations of the sample.
	if n := got[heavy]; n < 7600 || n > 12400 {
		t.Errorf("the heavy user sent about %d packets, want 10000", n)
	}
	if n := got[light]; n < 300 || n > 1800 {
		t.Errorf("the light user sent about %d packets, want 1000", n)
	}
	if again, err := a.Senders(); err != nil || len(again) != 0 {
		t.Errorf("asked again: %v, error %v, want nobody", again, err)
	}
}

// TestNetShedUsersKnowAtOnce: with real clients. New connections are refused, the one that is there goes on.
func TestNetShedUsersKnowAtOnce(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	held := l.hold(t, "10.0.0.11")
	if err := l.agents["s1"].Shed(addr(webGroup), ShedAll); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := l.dial("10.0.0.11")
	if took := time.Since(began); !errors.Is(err, unix.ECONNREFUSED) || took > 900*time.Millisecond {
		t.Errorf("connecting ends with %v after %v, want a refusal before the first SYN is sent again", err, took)
	}
	if err := l.dial("10.0.0.12"); err != nil {
		t.Errorf("the other server's user sees %v", err)
	}
	if _, err := io.WriteString(held, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := readError(t, held); err != nil {
		t.Errorf("user of an open connection sees %v, want an answer", err)
	}
	if err := l.agents["s1"].Shed(addr(webGroup), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.dial("10.0.0.11"); err != nil {
		t.Errorf("when nobody is shed any more: %v", err)
	}
	l.close(t, false)
}

// TestNetShedUsersOfAnotherWay: the first segment comes by a server that has lost the user. Its sender's address is of that server's link.
func TestNetShedUsersOfAnotherWay(t *testing.T) {
	s := newSite(t, "a", "b")
	s.start("a")
	s.move("b")
	s.lead("a")
	if err := s.planes["b"].Shed(addr(testVIP), ShedAll); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := s.users.Do(func() error {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(testVIP, "80"), 5*time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if took := time.Since(began); !errors.Is(err, unix.ECONNREFUSED) || took > 900*time.Millisecond {
		t.Errorf("connecting ends with %v after %v, want a refusal before the first SYN is sent again", err, took)
	}
	if c := s.counters("b"); c.Shed != 1 {
		t.Errorf("b counted %+v, want one refusal", c)
	}
}
