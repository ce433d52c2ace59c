package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const verdictRedirect = 7

// TCP flags.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// segment is tcpSegment with numbers.
func segment(src, dst uint16, flags byte, seq, ack uint32, data string) []byte {
	b := tcpSegment(src, dst, flags, nil, data)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	return b
}

// answerFrame is what a refused user gets: not to be fragmented, with MACs turned.
func answerFrame(p packet, from, to []byte) []byte {
	frame := p.frame()
	frame[14+6] |= 0x40
	frame[14+10], frame[14+11] = 0, 0
	binary.BigEndian.PutUint16(frame[14+10:], checksum(frame[14:34], 0))
	copy(frame, to)
	copy(frame[6:], from)
	return frame
}

func refusedServices() []DirectorService {
	services := directorServices()
	services[0].Refuse, services[1].Refuse = true, true
	return services
}

func TestNetDirectorProgramRefuses(t *testing.T) {
	to := func(proto uint8, payload []byte) packet {
		return packet{src: testUser, dst: testVIP, proto: proto, payload: payload}
	}
	with := func(p packet, change func(*packet)) packet { change(&p); return p }
	reset := func(flags byte, seq, ack uint32) []byte { return segment(80, 1000, flagRST|flags, seq, ack, "") }
	question := to(protoUDP, udpDatagram(1000, 53, "question"))
	from := func(p packet) packet { p.src = "127.0.0.1"; return p }
	answered, dropped, passed := DirectorCounters{Refused: 1}, DirectorCounters{Unanswered: 1}, DirectorCounters{Rewritten: 1}
	tests := []struct {
		name   string
		in     packet
		proto  uint8
		answer []byte // nil: none
		want   DirectorCounters
	}{
		{"SYN", to(protoTCP, segment(1000, 80, flagSYN, 7, 0, "")), protoTCP, reset(flagACK, 0, 8), answered},
		{"SYN with options", to(protoTCP, tcpSegment(1000, 80, flagSYN, []byte{2, 4, 5, 180}, "")), protoTCP, reset(flagACK, 0, 1), answered},
		{"SYN with data", to(protoTCP, segment(1000, 80, flagSYN, 0xfffffffe, 0, "hello")), protoTCP, reset(flagACK, 0, 4), answered},
		{"data of a connection", to(protoTCP, segment(1000, 80, flagACK, 7, 9, "hello")), protoTCP, reset(0, 9, 0), answered},
		{"end of one", to(protoTCP, segment(1000, 80, flagFIN, 7, 0, "")), protoTCP, reset(flagACK, 0, 8), answered},
		{"UDP", question, protoICMP, icmpMessage(3, 3, quote(question)), answered},
		{"empty UDP", to(protoUDP, udpDatagram(1000, 53, "")), protoICMP, icmpMessage(3, 3, quote(to(protoUDP, udpDatagram(1000, 53, "")))), answered},
		{"reset", to(protoTCP, segment(1000, 80, flagRST, 7, 0, "")), 0, nil, dropped},
		{"IP options", with(question, func(p *packet) { p.options = []byte{1, 1, 1, 0} }), 0, nil, dropped},
		{"from loopback", from(question), 0, nil, dropped},
		{"first fragment", with(question, func(p *packet) { p.more = true }), 0, nil, passed},
		{"echo", to(protoICMP, icmpMessage(8, 0, []byte("ping"))), 0, nil, passed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDirector(t, refusedServices())
			in := tt.in.frame()
			user, own := []byte{2, 0, 0, 0, 0, 11}, in[0:6:6]
			copy(in[6:], user)
			verdict, out := run(t, d.coll.Programs[directorProgDirector], in)
			counters, err := d.Counters()
			counters.Bytes = 0
			if err != nil || counters != tt.want {
				t.Errorf("counted %+v, error %v, want %+v", counters, err, tt.want)
			}
			if tt.answer == nil {
				if wanted := map[bool]uint32{true: verdictNext, false: verdictDrop}[tt.want == passed]; verdict != wanted {
					t.Errorf("verdict %#x, want %#x", verdict, wanted)
				}
				return
			}
			want := answerFrame(packet{src: testVIP, dst: testUser, proto: tt.proto, payload: tt.answer}, own, user)
			if verdict != verdictRedirect || !bytes.Equal(out, want) {
				t.Errorf("verdict %#x, frame\n% x, want a redirect of\n% x", verdict, out, want)
			}
		})
	}
}

// TestNetDirectorProgramLimitsUnreachables: of a burst of datagrams some go without an answer.
func TestNetDirectorProgramLimitsUnreachables(t *testing.T) {
	d := newDirector(t, refusedServices())
	if err := d.coll.Maps[directorMapUnreachableAt].Put(uint32(0), everyCPU(^uint64(0))); err != nil {
		t.Fatal(err)
	}
	in := packet{src: testUser, dst: testVIP, proto: protoUDP, payload: udpDatagram(1000, 53, "question")}
	if verdict, _ := run(t, d.coll.Programs[directorProgDirector], in.frame()); verdict != verdictDrop {
		t.Errorf("verdict %#x before the next one may be sent, want drop", verdict)
	}
	if err := d.coll.Maps[directorMapUnreachableAt].Put(uint32(0), everyCPU(uint64(0))); err != nil {
		t.Fatal(err)
	}
	if verdict, _ := run(t, d.coll.Programs[directorProgDirector], in.frame()); verdict != verdictRedirect {
		t.Errorf("verdict %#x when it may, want a redirect", verdict)
	}
}

// TestNetRefusedUsersKnowAtOnce: with real clients. A user of a refused service sees ECONNREFUSED in no time, one that was connected a
// reset; once it is not refused any more, all is as before.
func TestNetRefusedUsersKnowAtOnce(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	held := l.hold(t, "10.0.0.12")
	l.in(t, l.edge, func() error { return l.director.Set(refusedServices()) })

	began := time.Now()
	err := l.dial("10.0.0.11")
	if took := time.Since(began); !errors.Is(err, unix.ECONNREFUSED) || took > 900*time.Millisecond {
		t.Errorf("connecting ends with %v after %v, want a refusal before the first SYN is sent again", err, took)
	}
	if _, err := held.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := readError(t, held); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("user of an open connection sees %v, want a reset", err)
	}
	if err := l.askRefused(t, "10.0.0.11"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("user of UDP sees %v, want a refusal", err)
	}
	if c, err := l.director.Counters(); err != nil || c.Refused != 3 {
		t.Errorf("counted %+v, error %v, want 3 refused", c, err)
	}

	l.in(t, l.edge, func() error { return l.director.Set(directorServices()) })
	if got := l.get(t, "10.0.0.11", "x"); !strings.HasPrefix(got, "s1 ") {
		t.Errorf("once there is a server again, %q answers, want s1", got)
	}
	l.close(t, false)
}

// dial connects a user to VIP:80 and returns how that failed.
func (l *lan) dial(user string) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(user)}, Timeout: 3 * time.Second}
	return l.users.Do(func() error {
		c, err := d.Dial("tcp4", testVIP+":80")
		if err == nil {
			c.Close()
		}
		return err
	})
}

// askRefused sends one datagram to VIP:53 and returns how waiting for the answer failed.
func (l *lan) askRefused(t *testing.T, user string) error {
	t.Helper()
	var conn *net.UDPConn
	l.in(t, l.users, func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(user)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(testVIP+":53")))
		return err
	})
	defer conn.Close()
	if _, err := conn.Write([]byte("question")); err != nil {
		return err
	}
	return readError(t, conn)
}
