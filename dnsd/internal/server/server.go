// Package server answers DNS queries and takes dynamic updates over UDP, TCP and TLS.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/dnsd/internal/zone"
	"github.com/manycast/manycast/internal/daemon"
)

const (
	receiveSize    = 4096 // bytes of a UDP request
	connectionsMax = 1024 // TCP or TLS, per listener
	stopWithin     = 2 * time.Second
)

// Zones is what the server asks; zone.Store is one.
type Zones interface {
	Find(name string) *zone.Zone
	Zone(origin string) *zone.Zone
	Update(origin string, prerequisites, updates []dns.RR) (rcode int)
}

// Config says where to listen and who may do what.
type Config struct {
	Listen    []string // address:port, UDP and TCP
	TLSListen []string
	TLS       *tls.Config
	UDPSize   uint16 // largest UDP answer, bytes
	Clients   []Client
}

// Client is a TSIG key's holder. Any client may transfer zones.
type Client struct {
	Name   string // of the key
	Secret string // base64
	Update bool   // may update
}

// Server is a daemon.Task.
type Server struct {
	log       *slog.Logger
	metrics   *Metrics
	listeners []*dns.Server
	ready     chan struct{}
}

// Listen binds all sockets, so that what is wrong with them is known at once. Run serves them.
func Listen(cfg Config, zones Zones, now func() time.Time, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, metrics: newMetrics(), ready: make(chan struct{})}
	h := newHandler(cfg, zones, now, s.metrics, log)
	if err := s.bind(cfg); err != nil {
		s.close()
		return nil, err
	}
	for _, l := range s.listeners {
		l.Handler = h
		l.MsgAcceptFunc = accept
		l.TsigProvider = h.tsig
		l.UDPSize = receiveSize
	}
	return s, nil
}

func (s *Server) bind(cfg Config) error {
	for _, address := range cfg.Listen {
		tcp, err := listenTCP(address)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, &dns.Server{Listener: tcp})
		udp, err := net.ListenPacket("udp", tcp.Addr().String()) // the same port, if it was 0
		if err != nil {
			return describe(address, err)
		}
		s.listeners = append(s.listeners, &dns.Server{PacketConn: udp})
	}
	for _, address := range cfg.TLSListen {
		tcp, err := listenTCP(address)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, &dns.Server{Listener: tls.NewListener(tcp, cfg.TLS)})
	}
	return nil
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, describe(address, err)
	}
	return netutil.LimitListener(l, connectionsMax), nil
}

func describe(address string, err error) error {
	switch {
	case errors.Is(err, unix.EACCES):
		if e := daemon.Require(daemon.Need{Capability: daemon.NetBindService, To: "listen on ports below 1024"}); e != nil {
			err = e
		}
	case errors.Is(err, unix.EADDRINUSE):
		err = fmt.Errorf("%w: another DNS server is there: stop it, or listen on another address", err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		err = fmt.Errorf("%w: it is no address of this machine", err)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}

// Addrs are the addresses listened on: for each of Listen TCP and UDP, then those of TLSListen.
func (s *Server) Addrs() []net.Addr {
	var out []net.Addr
	for _, l := range s.listeners {
		if l.PacketConn != nil {
			out = append(out, l.PacketConn.LocalAddr())
		} else {
			out = append(out, l.Listener.Addr())
		}
	}
	return out
}

// Metrics are the server's counters.
func (s *Server) Metrics() *Metrics { return s.metrics }

// Ready is closed when all sockets are being served.
func (s *Server) Ready() <-chan struct{} { return s.ready }

func (s *Server) String() string { return "dns server" }

// Run serves until ctx is done; answers on their way are finished.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	started := make(chan struct{}, len(s.listeners))
	for _, l := range s.listeners {
		l.NotifyStartedFunc = func() { started <- struct{}{} }
		group.Go(func() error {
			if err := l.ActivateAndServe(); ctx.Err() == nil {
				return err
			}
			return nil // the socket was closed under it
		})
	}
	group.Go(func() error {
		for range s.listeners {
			select {
			case <-started:
			case <-ctx.Done():
				s.close()
				return nil
			}
		}
		for _, a := range s.Addrs() {
			s.log.Info("listening", "network", a.Network(), "address", a)
		}
		close(s.ready)
		<-ctx.Done()
		return s.shutdown()
	})
	return group.Wait()
}

func (s *Server) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	for _, l := range s.listeners {
		if err := l.ShutdownContext(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("stop: %w", err)
		}
	}
	return nil
}

func (s *Server) close() {
	for _, l := range s.listeners {
		if l.PacketConn != nil {
			_ = l.PacketConn.Close() // nobody is served any more
		} else {
			l.Listener.Close()
		}
	}
}

// accept lets queries with one question and updates in, and answers the rest without a handler. Responses are ignored, or two
// servers would talk for ever.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response = 1 << 15
	if h.Bits&response != 0 {
		return dns.MsgIgnore
	}
	switch opcode := int(h.Bits>>11) & 0xF; {
	case opcode != dns.OpcodeQuery && opcode != dns.OpcodeUpdate:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1:
		return dns.MsgReject
	case opcode == dns.OpcodeQuery && (h.Ancount > 0 || h.Nscount > 1 || h.Arcount > 3):
		return dns.MsgReject
	}
	return dns.MsgAccept
}
