package transport

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

var us = wire.Identifier{LSR: wire.LSRID{1, 1, 1, 1}}

// open is a connection that runs, its events, and the peer's end of it.
func open(t *testing.T) (*conn, <-chan Event, net.Conn) {
	events, quit := make(chan Event), make(chan struct{})
	c := newConn(us, netip.MustParseAddr("2.2.2.2"), events, quit)
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { c.run(near); close(done) }()
	t.Cleanup(func() { close(quit); far.Close(); <-done })
	return c, events, far
}

// ids are the IDs of the messages that arrive, up to a last one.
func ids(t *testing.T, far net.Conn, last uint32) (out []uint32) {
	t.Helper()
	var framer wire.Framer
	buf := make([]byte, 1<<16)
	for {
		_ = far.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := far.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = framer.Write(buf[:n])
		for {
			pdu, ok, err := framer.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			for m, err := range pdu.Messages() {
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, m.MessageID())
			}
		}
		if len(out) > 0 && out[len(out)-1] == last {
			return out
		}
	}
}

// TestPeerThatReadsNothing: as many messages wait for it as may, then the connection ends, and holds none of them.
func TestPeerThatReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, events, _ := open(t)
		const most = 1000
		c.SetMaxQueue(most)
		say := func(n int) {
			for range n {
				c.Send(wire.KeepAlive{Head: wire.Head{ID: 1}})
			}
			synctest.Wait()
		}
		say(1) // which the writer takes
		say(most)
		select {
		case e := <-events:
			t.Fatalf("%d wait, which may: %+v", most, e)
		default:
		}
		say(1)
		select {
		case e := <-events:
			if closed, is := e.(Closed); !is || closed.Err == nil || !strings.Contains(closed.Err.Error(), "1000 messages wait") {
				t.Errorf("%+v", e)
			}
		case <-time.After(time.Second):
			t.Fatal("the connection goes on")
		}
		say(1)
		if len(c.queue) > 0 {
			t.Errorf("%d messages are held", len(c.queue))
		}
	})
}

// TestMessageBeyondAPDU: one that fits into no PDU is told of, and neither the session nor what is sent with it is lost.
func TestMessageBeyondAPDU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, events, far := open(t)
		c.SetMaxPDU(256)
		path := make([]wire.LSRID, 100)
		for id := uint32(1); id <= 5; id++ {
			m := wire.LabelMapping{Head: wire.Head{ID: id}, FEC: wire.FEC{wire.Prefix{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}, Label: 100}
			if id%2 == 0 {
				m.PathVector = path
			}
			c.Send(m)
		}
		var dropped []uint32
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 2 {
				e, is := (<-events).(Dropped)
				if !is || e.Conn != c || e.Err == nil {
					t.Errorf("%+v", e)
					return
				}
				dropped = append(dropped, e.Message.MessageID())
			}
		}()
		got := ids(t, far, 5)
		<-done
		if len(got) != 3 || got[0] != 1 || got[1] != 3 || len(dropped) != 2 || dropped[0] != 2 || dropped[1] != 4 {
			t.Errorf("came %v, dropped %v", got, dropped)
		}
	})
}
