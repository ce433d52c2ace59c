package scenario

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/clientstatus"
	"github.com/manycast/manycast/internal/lab/forger"
	"github.com/manycast/manycast/internal/lab/probe"
)

func TestPacketsGoWhereMovesLed(t *testing.T) {
	addr := map[byte]netip.Addr{'v': netip.MustParseAddr("192.0.2.80"), 'e': netip.MustParseAddr("10.9.0.66")}
	for i, name := range "abc" {
		addr[byte(name)] = netip.AddrFrom4([4]byte{10, 3, byte(i + 1), 10})
	}
	for _, tt := range []struct {
		path, moves string // where packets went; where it was at first, and where it was moved
		ok          bool
	}{
		{"va", "a", true},
		{"vab", "ab", true},
		{"vabcab", "abcab", true},
		{"vb", "ab", true}, // moved before it had a packet
		{"vb", "b", true},
		{"vc", "ab", false},  // the SYN-ACK said another one
		{"vac", "abc", true}, // no packet while it was there
		{"vbc", "abc", true},
		{"vabab", "ab", false}, // back after it had been followed
		{"vaba", "abc", false},
		{"vavab", "ab", false},
		{"vabc", "ab", false}, // nobody moved it there
		{"vae", "ab", false},
		{"vab", "abc", false}, // it is not where packets go
		{"ab", "ab", false},
		{"", "a", false},
	} {
		var path []netip.Addr
		for _, to := range []byte(tt.path) {
			path = append(path, addr[to])
		}
		var moves []forger.Message
		for i := range len(tt.moves) - 1 {
			place := func(at byte) netip.AddrPort { return netip.AddrPortFrom(addr[at], 9000) }
			m := forger.New(netip.MustParseAddrPort("10.1.0.11:40000"), place('v'), place(tt.moves[i]), place(tt.moves[i+1]), time.Now())
			moves = append(moves, m.Later(uint64(i)))
		}
		c := clientstatus.Connection{
			VIP: netip.AddrPortFrom(addr['v'], 9000), Destination: netip.AddrPortFrom(addr[tt.moves[len(tt.moves)-1]], 9000), Moves: uint32(len(moves)),
		}
		if why := wentAsTold(path, c, addr[tt.moves[0]], moves); (why == "") != tt.ok {
			t.Errorf("%s by %s: %q", tt.path, tt.moves, why)
		}
	}
}

func TestRefusedIsWhatWasSent(t *testing.T) {
	sent := map[string]int{"bad_signature": 5, "wrong_cookie": 100, "stale": 3, "bad_signature or too_many or lost": 50}
	for _, tt := range []struct {
		refused map[string]int
		ok      bool
	}{
		{map[string]int{"bad_signature": 15, "too_many": 20, "lost": 20, "wrong_cookie": 100, "stale": 3}, true},
		{map[string]int{"bad_signature": 5, "lost": 50, "wrong_cookie": 100, "stale": 9}, true},                    // servers repeat their messages
		{map[string]int{"bad_signature": 14, "too_many": 20, "lost": 20, "wrong_cookie": 100, "stale": 3}, false},  // one was believed
		{map[string]int{"bad_signature": 5, "lost": 50, "wrong_cookie": 99, "wrong_tag": 1, "stale": 3}, false},    // for another reason
		{map[string]int{"bad_signature": 5, "lost": 50, "wrong_cookie": 100, "stale": 3, "outside_set": 1}, false}, // whose?
		{map[string]int{"bad_signature": 5, "lost": 50, "wrong_cookie": 100, "stale": 2}, false},                   // a replay counted
		{nil, false},
	} {
		if detail, ok := refusedAsSent(sent, tt.refused); ok != tt.ok {
			t.Errorf("%v: %s", tt.refused, detail)
		}
	}
	if _, ok := refusedAsSent(nil, nil); ok {
		t.Error("no attack is well")
	}
}

func TestHandshakesAreJudged(t *testing.T) {
	request := forger.Option{Tag: 0x2a17, Cookie: 0xc00c1e5ec7e75a1d}
	syn := []byte{0xfe, 14, 0x4d, 0x44, 0x2a, 0x17, 0xc0, 0x0c, 0x1e, 0x5e, 0xc7, 0xe7, 0x5a, 0x1d}
	answer := append(append([]byte{0xfe, 20}, syn[2:]...), 10, 3, 1, 10, 0, 80)
	isServer := func(a netip.Addr) bool { return a == netip.MustParseAddr("10.3.1.10") }
	changed := func(at int) []byte {
		b := append([]byte(nil), answer...)
		b[at] ^= 1
		return b
	}
	for name, tt := range map[string]struct {
		answer []byte
		ok     bool
	}{
		"well": {answer, true}, "tag": {changed(5), false}, "cookie": {changed(13), false}, "address": {changed(17), false}, "port": {changed(19), false},
		"no destination": {syn, false}, "plain": {[]byte{2, 4, 5, 0xb4}, false},
	} {
		h := probe.Handshake{Connection: probe.Connection{Port: 80}, Answer: tt.answer}
		if why := answeredWrong(request, h, isServer); (why == "") != tt.ok {
			t.Errorf("%s: %q", name, why)
		}
	}
	request.Destination = netip.MustParseAddrPort("10.3.1.10:80")
	if answeredWrong(request, probe.Handshake{Connection: probe.Connection{Port: 80}, Answer: answer}, isServer) == "" {
		t.Error("a SYN that says where it is")
	}
}
