package intruder

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/keyfile"
	"github.com/manycast/manycast/internal/testnet"
)

var (
	group     = netip.MustParseAddr("239.80.80.80")
	requester = netip.MustParsePrefix("10.3.2.20/24")
	now       = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func key(t *testing.T) *keyfile.Group {
	k, err := keyfile.NewGroup("web.cast.example.", group)
	if err != nil {
		t.Fatal(err)
	}
	return &k
}

// forged returns the join inside an attack's packet.
func forged(t *testing.T, a Attack) join.Signed {
	t.Helper()
	packet, err := a.Packet(now)
	if err != nil {
		t.Fatal(err)
	}
	m, err := igmp.Parse(packet[headerBytes:])
	if err != nil {
		t.Fatal(err)
	}
	joins, err := join.FromReport(m.(igmp.Report))
	if err != nil || len(joins) != 1 {
		t.Fatalf("%d joins, %v", len(joins), err)
	}
	if j := joins[0]; j.Group != group || j.Requester != requester.Addr() || j.Link != requester.Masked() {
		t.Errorf("join %+v", j)
	}
	return joins[0]
}

func TestAttacksAreWrongInOneWayOnly(t *testing.T) {
	k := key(t)
	public := k.Public().Public
	if j := forged(t, Attack{Unsigned, group, requester, nil}); len(j.Signature) != 0 {
		t.Error("unsigned join bears a signature")
	}
	if j := forged(t, Attack{WrongKey, group, requester, k}); len(j.Signature) == 0 || j.KeyID != k.Public().ID || j.Verify(public) {
		t.Error("wrong-key: want the group's key id and a signature that does not hold")
	}
	if j := forged(t, Attack{WrongLink, group, requester, k}); !j.Verify(public) {
		t.Error("wrong-link: the signature has to hold")
	}
	for _, a := range []Attack{{WrongKey, group, requester, nil}, {Replay, group, requester, k}} {
		if _, err := a.Packet(now); err == nil {
			t.Errorf("%s: a packet was made of nothing", a.Kind)
		}
	}
}

func TestOnlySignedJoinsOfTheGroupAreCaptured(t *testing.T) {
	k := key(t)
	good, err := Attack{WrongLink, group, requester, k}.Packet(now)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := Attack{Unsigned, group, requester, nil}.Packet(now)
	if err != nil {
		t.Fatal(err)
	}
	if !isJoinOf(group, good) || isJoinOf(group, unsigned) || isJoinOf(netip.MustParseAddr("239.1.1.1"), good) {
		t.Error("taken for what it is not")
	}
	for n := range good {
		if isJoinOf(group, good[:n]) {
			t.Fatalf("the first %d bytes were taken for a join", n)
		}
	}
}

func TestNetReplayedBytesAreTheCaptured(t *testing.T) {
	n := testnet.New(t)
	a, b := n.Node("a"), n.Node("b")
	n.Link(a, "eth0", "10.3.2.66/24", b, "eth0", "10.3.2.1/24")
	want, err := Attack{WrongLink, group, requester, key(t)}.Packet(now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got := make(chan []byte, 1)
	go func() {
		err := b.Do(func() error {
			p, err := Capture(ctx, "eth0", group)
			got <- p
			return err
		})
		if err != nil {
			t.Errorf("capture: %v", err)
		}
	}()
	testnet.Eventually(t, 5*time.Second, func() bool {
		if err := a.Do(func() error { return Send("eth0", want) }); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-got:
			return string(p[headerBytes:]) == string(want[headerBytes:])
		default:
			return false
		}
	}, "the packet that was sent is captured")
}
