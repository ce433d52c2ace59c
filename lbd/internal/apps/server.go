package apps

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manycast/manycast/internal/peercred"
	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// Limits bound what applications can cost the agent.
type Limits struct {
	Links       int           // listeners of all applications
	Outstanding int           // questions to one listener without an answer; further ones wait
	Hello       time.Duration // an application says who it is within
	Stuck       time.Duration // it reads on within, or loses its agent
	Settle      time.Duration // at the end of Run, what is held is settled within
}

// again is how long a listener waits for what an accept needs and is not there.
const again = 100 * time.Millisecond

// DefaultLimits are good for a server with some applications.
func DefaultLimits() Limits {
	return Limits{Links: 256, Outstanding: 1024, Hello: 5 * time.Second, Stuck: 10 * time.Second, Settle: 5 * time.Second}
}

// queue is how many messages wait for one listener at most: each question has two words in the end, and some room for late answers.
func (l Limits) queue() int { return 4*l.Outstanding + 16 }

// Server takes applications at a unix socket. It is a daemon.Task.
type Server struct {
	path   string
	limits Limits
	log    *slog.Logger
	ready  chan struct{}
	lastID atomic.Uint64

	mu    sync.Mutex
	links []*link // in the order in which they came
	turn  int     // who is asked first to take a connection
	ended bool    // Run is about to return
}

var _ Apps = (*Server)(nil)

// NewServer makes the server of a unix socket's path. Who may write to it is an application: mode 0660.
func NewServer(path string, limits Limits, log *slog.Logger) *Server {
	return &Server{path: path, limits: limits, log: log, ready: make(chan struct{})}
}

// Ready is closed when applications find the socket.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// String names the task.
func (s *Server) String() string { return "applications" }

// Run serves, once, until ctx is done. Whoever has connections between two owners then settles them: until that, or for Limits.Settle, the
// applications keep their agent.
func (s *Server) Run(ctx context.Context) error {
	l, err := s.listen()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	close(s.ready)
	var links sync.WaitGroup
	err = s.accept(ctx, l, &links)
	s.endAll()
	settled := make(chan struct{})
	go func() {
		links.Wait()
		close(settled)
	}()
	select {
	case <-settled:
	case <-time.After(s.limits.Settle): // the end of the process closes the links, and by then nobody freezes anything
		s.log.Warn("connections between two applications are left as they are", "waited", s.limits.Settle)
	}
	return err
}

func (s *Server) listen() (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o750); err != nil {
		return nil, fmt.Errorf("directory of the applications' socket (handover.socket; empty: there is none): %w", err)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("applications' old socket: %w", err)
	}
	l, err := net.ListenUnix(wire.Network, &net.UnixAddr{Name: s.path, Net: wire.Network})
	if err != nil {
		return nil, fmt.Errorf("applications' socket: %w", err)
	}
	if err := os.Chmod(s.path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("applications' socket: %w", err)
	}
	return l, nil
}

func (s *Server) accept(ctx context.Context, l *net.UnixListener, links *sync.WaitGroup) error {
	defer l.Close()
	places := make(chan struct{}, s.limits.Links)
	for {
		c, err := l.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // connections that move have them all: not for long
			s.log.Warn("an application waits for a free descriptor", "err", err)
			time.Sleep(again)
			continue
		}
		if err != nil {
			return fmt.Errorf("applications' socket: %w", err)
		}
		select {
		case places <- struct{}{}:
			links.Go(func() {
				defer func() { <-places }()
				s.serve(c)
			})
		default:
			s.log.Warn("an application is refused: too many listeners", "limit", s.limits.Links)
			c.Close()
		}
	}
}

// serve has one listener until the link to it is closed.
func (s *Server) serve(c *net.UnixConn) {
	k := newLink(wire.NewConn(c), s.limits, s.log.With(peer(c)...))
	if err := k.greet(); err != nil {
		k.log.Warn("what is no application connected", "err", err)
		c.Close()
		return
	}
	s.add(k)
	defer s.remove(k)
	var reader sync.WaitGroup
	reader.Go(k.read)
	k.write()
	reader.Wait()
}

// peer is who is at the other end, for the log.
func peer(c *net.UnixConn) []any {
	cred, err := peercred.Of(c)
	if err != nil {
		return nil
	}
	return []any{"process", cred.Pid, "user", cred.Uid}
}

func (s *Server) add(k *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = append(s.links, k)
	if s.ended {
		k.end(false)
	}
}

func (s *Server) remove(k *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = slices.DeleteFunc(s.links, func(l *link) bool { return l == k })
}

func (s *Server) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, k := range s.links {
		k.end(false)
	}
}

// serving are the links whose applications listen at an address, from another one on each time.
func (s *Server) serving(local netip.AddrPort) []*link {
	s.mu.Lock()
	links := slices.Clone(s.links)
	s.turn++
	turn := s.turn
	s.mu.Unlock()
	links = slices.DeleteFunc(links, func(k *link) bool { return !k.serves(local) })
	if len(links) == 0 {
		return nil
	}
	turn %= len(links)
	return append(links[turn:], links[:turn]...)
}

// Serves implements Apps.
func (s *Server) Serves(local netip.AddrPort) bool { return len(s.serving(plain(local))) > 0 }

// plain is an address as applications say it.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
