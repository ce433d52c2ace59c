package server

import (
	"net"
	"testing"

	"github.com/miekg/dns"
)

// fakeWriter is a dns.ResponseWriter that checks what it is given.
type fakeWriter struct {
	dns.ResponseWriter
	t      *testing.T
	udp    bool
	status error
	n      int
	closed bool
}

func (w *fakeWriter) LocalAddr() net.Addr { return &net.TCPAddr{} }

func (w *fakeWriter) RemoteAddr() net.Addr {
	if w.udp {
		return &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
}

func (w *fakeWriter) WriteMsg(m *dns.Msg) error {
	w.n++
	wire, err := m.Pack()
	if err != nil {
		w.t.Errorf("answer does not pack: %v\n%v", err, m)
	}
	if w.udp && len(wire) > 1232 {
		w.t.Errorf("answer of %d bytes", len(wire))
	}
	return nil
}

func (w *fakeWriter) TsigStatus() error   { return w.status }
func (w *fakeWriter) TsigTimersOnly(bool) {}
func (w *fakeWriter) Close() error        { w.closed = true; return nil }
