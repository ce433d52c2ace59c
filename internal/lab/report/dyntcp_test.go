package report

import (
	"net/netip"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/lab/numbered"
	"github.com/manycast/manycast/internal/lab/traffic"
)

// Those of some users are judged by themselves, and what no server wrote is nobody's.
func TestCarried(t *testing.T) {
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	own, plain := netip.MustParseAddr("10.1.0.11"), netip.MustParseAddr("10.1.2.11")
	era := func(s int, owner string) Era {
		return Era{At: at(s), Owner: func(netip.Addr) string { return owner }}
	}
	tally := Tally{Timeline: Timeline{era(0, "s1"), era(5, "s2"), era(8, "s3")}, Periods: []Period{{Strategy: "transfer", Start: at(0), End: at(20)}}}
	whole := &traffic.Bytes{Down: numbered.Counts{Received: 80}, Up: &numbered.Counts{Received: 8}}
	tally.Add(traffic.Event{Kind: traffic.Close, User: own, Start: at(1), End: at(10), Conn: 1, How: traffic.Own, Server: "s3", Stream: traffic.Paced, Bytes: whole})
	tally.Add(traffic.Event{Kind: traffic.Switch, User: own, Start: at(4), End: at(5), Conn: 1, Stream: traffic.Paced, Server: "s2", OK: true})
	tally.Add(traffic.Event{Kind: traffic.Close, User: plain, Start: at(1), End: at(6), Conn: 1, How: traffic.Reset, Server: "s1", Stream: "stream",
		Bytes: &traffic.Bytes{Down: numbered.Counts{Received: 8, Lost: 16}}})
	isOwn := func(u netip.Addr) bool { return u == own }
	c, broken := tally.Carried(isOwn)
	if c.Connections != 1 || c.Moves != 2 || c.Switched != 1 || c.StreamsEnded != 1 || c.BytesReceived != 88 || !c.Whole() || len(broken) != 0 {
		t.Errorf("%+v, %v", c, broken)
	}
	c, broken = tally.Carried(func(u netip.Addr) bool { return !isOwn(u) })
	if c.Connections != 1 || c.Moves != 1 || c.Switched != 0 || c.Broken != 1 || c.BytesLost != 16 || c.Whole() || len(broken) != 1 {
		t.Errorf("%+v, %v", c, broken)
	}
	if foreign := tally.Foreign(); len(foreign) != 0 {
		t.Errorf("%v", foreign)
	}
	tally.Add(traffic.Event{Kind: traffic.Switch, User: own, Conn: 1, Start: at(6), End: at(7), OK: true})                                        // to a writer that is no server
	tally.Add(traffic.Event{Kind: traffic.Close, User: own, Conn: 1, How: traffic.Own, Bytes: &traffic.Bytes{Down: numbered.Counts{Garbled: 5}}}) // the same one
	tally.Add(traffic.Event{Kind: traffic.Close, User: plain, Conn: 2, How: traffic.Own, Bytes: &traffic.Bytes{Up: &numbered.Counts{Garbled: 5}}})
	if foreign := tally.Foreign(); len(foreign) != 2 {
		t.Errorf("%v", foreign)
	}
}

func TestHandshakesSayTheMiddle(t *testing.T) {
	us := func(n ...int) (times []time.Duration) {
		for _, n := range n {
			times = append(times, time.Duration(n)*time.Microsecond)
		}
		return times
	}
	if h := NewHandshakes(us(90, 70, 500), us(80, 75)); h != (Handshakes{2, 90, 75}) {
		t.Errorf("%+v", h)
	}
	if h := NewHandshakes(nil, us(1)); h != (Handshakes{0, 0, 1}) {
		t.Errorf("%+v", h)
	}
}
