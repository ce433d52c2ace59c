package interop

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// intruder is a router that says whatever a test has it say. Its address is greater than that of whom it talks to, so it connects.
type intruder struct {
	line     *line
	at, peer int
	id       wire.Identifier
	conn     net.Conn
	framer   wire.Framer
	messages []wire.Message // come, and not looked at
}

// intruder greets on a link from now on.
func (l *line) intruder(at, peer int, iface string) *intruder {
	l.t.Helper()
	i := &intruder{line: l, at: at, peer: peer, id: wire.Identifier{LSR: l.id(at).As4()}}
	l.greets(at, iface, i.id, l.id(at), 15)
	return i
}

// greets sends link hellos with that hold time every second until the end of the test, or until it is told to stop.
func (l *line) greets(at int, iface string, id wire.Identifier, transport netip.Addr, hold uint16) (stop func()) {
	l.t.Helper()
	var pc net.PacketConn
	err := l.nodes[at].Do(func() (err error) {
		ifi, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		if pc, err = net.ListenPacket("udp4", ":0"); err != nil {
			return err
		}
		return ipv4.NewPacketConn(pc).SetMulticastInterface(ifi)
	})
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	stop = sync.OnceFunc(func() { close(done); pc.Close() })
	l.t.Cleanup(stop)
	go func() {
		for n := uint32(1); ; n++ {
			hello := wire.Hello{Head: wire.Head{ID: n}, HelloParameters: wire.HelloParameters{HoldTime: hold}, IPv4Transport: transport}
			if datagram, err := wire.AppendPDU(nil, id, 0, hello); err == nil {
				_, _ = pc.WriteTo(datagram, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 2), Port: wire.Port}) // one more comes
			}
			select {
			case <-done:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	return stop
}

// datagram sends one to LDP's port of an address, from one of the sender's own.
func (l *line) datagram(at int, from, to netip.Addr, b []byte) {
	l.t.Helper()
	err := l.nodes[at].Do(func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, wire.Port)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(b)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// connect opens a connection, in place of the one before.
func (i *intruder) connect() {
	i.line.t.Helper()
	i.close()
	i.framer, i.messages = wire.Framer{}, nil
	err := i.line.nodes[i.at].Do(func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(i.line.id(i.at), 0)), Timeout: soon}
		i.conn, err = d.DialContext(context.Background(), "tcp", netip.AddrPortFrom(i.line.id(i.peer), wire.Port).String())
		return err
	})
	if err != nil {
		i.line.t.Fatal(err)
	}
}

func (i *intruder) close() {
	if i.conn != nil {
		i.conn.Close()
		i.conn = nil
	}
}

// proposal is an Initialization that is acceptable.
func (i *intruder) proposal() wire.Initialization {
	return wire.Initialization{SessionParameters: wire.SessionParameters{
		KeepAliveTime: 60, Receiver: wire.Identifier{LSR: i.line.id(i.peer).As4()},
	}}
}

// session begins one, and waits until the other side has said all that it has to say at first: its addresses come before its bindings.
func (i *intruder) session(proposal wire.Initialization) {
	i.line.t.Helper()
	i.connect()
	i.say(proposal, wire.KeepAlive{})
	i.hears("its binding of its own address", func(m wire.Message) bool {
		mapping, ok := m.(wire.LabelMapping)
		return ok && mapping.Label == wire.LabelImplicitNull && mapping.FEC[0] == wire.FECElement(wire.Prefix{Prefix: i.line.host4(i.peer)})
	})
}

func (i *intruder) say(messages ...wire.Message) {
	i.line.t.Helper()
	b, err := wire.AppendPDU(nil, i.id, 0, messages...)
	if err != nil {
		i.line.t.Fatal(err)
	}
	i.send(b)
}

// send sends bytes; that the other side has closed the connection is not found out here.
func (i *intruder) send(b []byte) { _, _ = i.conn.Write(b) }

// next is the next message; an error that wraps io.EOF tells that the other side closed the connection.
func (i *intruder) next(within time.Duration) (wire.Message, error) {
	_ = i.conn.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, 64<<10)
	for len(i.messages) == 0 {
		n, err := i.conn.Read(buf)
		_, _ = i.framer.Write(buf[:n])
		if err != nil {
			return nil, err
		}
		for {
			pdu, ok, err := i.framer.Next()
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			for m, err := range pdu.Messages() {
				if err != nil {
					return nil, err
				}
				i.messages = append(i.messages, m)
			}
		}
	}
	m := i.messages[0]
	i.messages = i.messages[1:]
	return m, nil
}

// hears waits for a message.
func (i *intruder) hears(what string, is func(wire.Message) bool) {
	i.line.t.Helper()
	for {
		m, err := i.next(soon)
		if err != nil {
			i.line.t.Fatalf("waiting for %s: %v", what, err)
		}
		if is(m) {
			return
		}
	}
}

// told waits for a notification, and tells what it says.
func (i *intruder) told() (n wire.Notification, err error) {
	for {
		m, err := i.next(soon)
		if err != nil {
			return n, err
		}
		if n, ok := m.(wire.Notification); ok {
			return n, nil
		}
	}
}

// ended waits for the end of the connection.
func (i *intruder) ended() bool {
	for {
		if _, err := i.next(soon); err != nil {
			var timeout net.Error
			return !errors.As(err, &timeout) || !timeout.Timeout()
		}
	}
}

// answers says whether the session goes on: a request for the other's own address gets its answer.
func (i *intruder) answers() bool {
	i.line.t.Helper()
	i.line.asked++
	id := i.line.asked
	i.say(wire.LabelRequest{Head: wire.Head{ID: id}, FEC: wire.FEC{wire.Prefix{Prefix: i.line.host4(i.peer)}}})
	for {
		m, err := i.next(soon)
		if err != nil {
			return false
		}
		if mapping, ok := m.(wire.LabelMapping); ok && mapping.RequestID != nil && *mapping.RequestID == id {
			return true
		}
	}
}

// table reads lines of cells from a file of the codec's tests.
func table(t *testing.T, file string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "wire", "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		row := strings.Split(line, "|")
		for n := range row {
			row[n] = strings.TrimSpace(row[n])
		}
		rows = append(rows, row)
	}
	return rows
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(strconv.Quote(text), err)
	}
	return b
}
