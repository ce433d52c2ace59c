package forger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

var at = netip.MustParseAddrPort

// seen is a true message: one that both ends of dynamic TCP are tested with.
func seen(t *testing.T) Message {
	t.Helper()
	text, err := os.ReadFile("../../../lbd/internal/dyntcp/wire/testdata/change4.hex")
	if err != nil {
		t.Fatal(err)
	}
	_, digits, _ := strings.Cut(string(text), "\n")
	raw, err := hex.DecodeString(strings.Join(strings.Fields(digits), ""))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Captured(raw)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Who has the key makes the very message: what is refused of who has it not is so for no other reason.
func TestMessagesAreAsTheirEndsHaveThem(t *testing.T) {
	want := seen(t)
	moment := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	m, err := New(at("10.1.0.7:40001"), at("192.0.2.80:80"), at("10.2.0.3:8080"), at("10.3.0.4:8080"), moment).Known(0x2a17, 0xc00c1e5ec7e75a1d).Later(1).
		Signed(ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef")), true)
	if err != nil || m != want {
		t.Errorf("%x, want %x, %v", m, want, err)
	}
	if m.User() != at("10.1.0.7:40001") || m.VIP() != at("192.0.2.80:80") || m.Origin() != at("10.2.0.3:8080") || m.Destination() != at("10.3.0.4:8080") ||
		m.Tag() != 0x2a17 || m.Cookie() != 0xc00c1e5ec7e75a1d || m.Sequence() != 2 {
		t.Errorf("%v %v %v %v %x %x %d", m.User(), m.VIP(), m.Origin(), m.Destination(), m.Tag(), m.Cookie(), m.Sequence())
	}
	if _, err := Captured(want[1:]); err == nil {
		t.Error("what is too short was taken")
	}
}

func TestEveryKindIsForgedInItsWay(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	truth, now := seen(t), time.Now()
	made := map[string]Kind{}
	for _, kind := range append(slices.Clone(OnPath), Flood) {
		raw, err := Forge(kind, truth, key, at("10.3.0.9:8080"), at("10.9.0.66:8080"), now)
		if err != nil {
			t.Fatal(err)
		}
		m, err := Captured(raw)
		if err != nil || m.Tag() != truth.Tag() || m.Cookie() != truth.Cookie() || (m == truth) != (kind == Replay) ||
			kind != Replay && (m.Sequence() <= truth.Sequence() || m.Origin() != truth.Destination()) {
			t.Errorf("%s: %x, %v", kind, raw, err)
		}
		if other, known := made[string(raw)]; known && (kind != Flood || other != WrongKey) {
			t.Errorf("%s is the same as %s", kind, other)
		}
		made[string(raw)] = kind
	}
	for _, kind := range OffPath {
		for n := range uint64(6) {
			raw, err := Guess(kind, at("10.1.0.7:40001"), at("192.0.2.80:80"), at("10.3.0.4:8080"), at("10.9.0.66:8080"), 0x2a17, n, now)
			m, broken := Captured(raw)
			if err != nil || kind != Malformed && broken != nil || kind == WrongTag && m.Tag() == 0x2a17 || kind == WrongCookie && m.Tag() != 0x2a17 ||
				kind == Unknown && m.User() == at("10.1.0.7:40001") || bytes.Contains(raw, truth[offCookie:offUserPort]) {
				t.Errorf("%s: %x, %v", kind, raw, err)
			}
		}
	}
	for _, kind := range slices.Concat(OnPath, OffPath, []Kind{Flood}) {
		if len(Reasons[kind]) == 0 {
			t.Errorf("nobody refuses %s", kind)
		}
	}
	if _, err := Forge(WrongTag, truth, key, at("10.3.0.9:8080"), at("10.9.0.66:8080"), now); err == nil {
		t.Error("who is on the path guesses")
	}
}

// A host takes the datagram and the segment of who is not there as what they say: a checksum that is wrong would keep them out, and show nothing.
func TestNetSpoofedPacketsAreTaken(t *testing.T) {
	n := testnet.New(t)
	host, other := n.Node("host"), n.Node("other")
	n.Link(host, "eth0", "10.0.0.1/24", other, "eth0", "10.0.0.2/24")
	other.Address("eth0", "10.0.0.3/24")
	s, err := Open(host.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	to := at("10.0.0.2:7000")
	var c net.PacketConn
	err = other.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.UDP(at("10.0.0.99:4"), to, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 9)
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, who, err := c.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" || who.String() != "10.0.0.99:4" {
		t.Errorf("%q of %v, %v", buf[:n], who, err)
	}
	for _, payload := range []string{"", "even", "odd"} {
		if err := s.TCP(Segment{From: at("10.0.0.1:5000"), To: to, Sequence: 7, Flags: ACK, Payload: []byte(payload)}); err != nil {
			t.Fatal(err)
		}
	}
	testnet.Eventually(t, 5*time.Second, func() bool { return tcp(t, other)["InSegs"] == "3" }, "three segments came")
	if counts := tcp(t, other); counts["InCsumErrors"] != "0" || counts["InErrs"] != "0" || counts["OutRsts"] != "3" {
		t.Errorf("%v: want each to be answered by a reset, as nobody's", counts)
	}
}

// tcp are a host's counters of TCP.
func tcp(t *testing.T, host *testnet.Node) map[string]string {
	t.Helper()
	out, err := host.Run("grep", "^Tcp:", "/proc/net/snmp")
	if err != nil {
		t.Fatal(out, err)
	}
	names, values, _ := strings.Cut(strings.TrimSpace(out), "\n")
	counts, of := map[string]string{}, strings.Fields(values)
	for i, name := range strings.Fields(names) {
		counts[name] = of[i]
	}
	return counts
}
