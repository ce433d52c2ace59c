package interop

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/manycast/manycast/internal/testnet"
)

// own is a router's own address of the family of another one.
func (l *line) own(at int, family netip.Addr) netip.Addr {
	if family.Is4() {
		return l.id(at)
	}
	return l.id6(at)
}

// reaches pings from one router's own address, to which all have routes, to another one's until there is an answer.
func (l *line) reaches(at int, to netip.Addr) {
	l.t.Helper()
	l.eventually(func() bool {
		_, err := l.nodes[at].Run("ping", "-c", "1", "-W", "1", "-I", l.own(at, to).String(), to.String())
		return err == nil
	}, l.own(at, to), " reaches ", to)
}

// transfer sends bytes over TCP from one router to another one's address.
func (l *line) transfer(from, at int, to netip.Addr, size int) {
	l.t.Helper()
	listener, err := l.nodes[at].Listen("tcp", netip.AddrPortFrom(to, 5000).String())
	if err != nil {
		l.t.Fatal(err)
	}
	defer listener.Close()
	got := testnet.Received(listener)
	ctx, cancel := context.WithTimeout(l.t.Context(), soon)
	defer cancel()
	var c net.Conn
	err = l.nodes[from].Do(func() error {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.own(from, to), 0))}
		c, err = d.DialContext(ctx, "tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		l.t.Error(err)
	}
	c.Close()
	if n := <-got; n != int64(size) {
		l.t.Errorf("%d bytes came of %d", n, size)
	}
}

// flood is pings at a steady rate.
type flood struct {
	line   *line
	at     int // where they go to
	before int // what had come in there
	*testnet.Process
}

// flood sends them from one router to an address of another one's.
func (l *line) flood(at, far int, to netip.Addr) *flood {
	l.t.Helper()
	l.reaches(at, to)
	f := &flood{l, far, l.echoes(far), l.nodes[at].Start("ping", "-D", "-i", "0.005", "-I", l.own(at, to).String(), to.String())}
	time.Sleep(200 * time.Millisecond) // of traffic before
	return f
}

// echoes is how many pings have come to a router.
func (l *line) echoes(at int) (n int) {
	l.t.Helper()
	if _, err := fmt.Sscan(l.run(at, "awk", `/^Icmp:/ && $2 != "InMsgs" {print $10}`, "/proc/self/net/snmp"), &n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

// result is what became of a flood.
type result struct {
	sent, lost, unanswered int           // lost: did not get there
	outage                 time.Duration // longest time between two answers
}

// String is for the log.
func (r result) String() string {
	return fmt.Sprintf("of %d pings %d lost, %d not answered, outage %v", r.sent, r.lost, r.unanswered, r.outage)
}

// end ends it.
func (f *flood) end() (r result) {
	f.line.t.Helper()
	time.Sleep(200 * time.Millisecond) // and after
	f.Signal(os.Interrupt)
	_ = f.Wait()
	var got int
	_, text, _ := strings.Cut(f.Output(), "statistics ---\n")
	if _, err := fmt.Sscanf(text, "%d packets transmitted, %d received", &r.sent, &got); err != nil || r.sent < 50 {
		f.line.t.Fatalf("%v: %s", err, f.Output())
	}
	r.lost, r.unanswered = max(0, r.sent-f.line.echoes(f.at)+f.before-1), max(0, r.sent-got-1) // one may be on its way at the end
	last := 0.0
	for line := range strings.Lines(f.Output()) {
		var at float64
		if n, _ := fmt.Sscanf(line, "[%f] 64 bytes", &at); n == 1 {
			if last > 0 {
				r.outage = max(r.outage, time.Duration((at-last)*float64(time.Second)))
			}
			last = at
		}
	}
	r.outage = r.outage.Round(time.Millisecond)
	return r
}
