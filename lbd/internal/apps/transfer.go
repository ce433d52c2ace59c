package apps

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/manycast/manycast/lbd/migrate/wire"
	"golang.org/x/sys/unix"
)

// Export implements Apps.
func (s *Server) Export(ctx context.Context, f Flow) (Exported, error) {
	f = Flow{plain(f.Local), plain(f.Remote)}
	err := ErrUnknown
	for _, k := range s.serving(f.Local) { // several processes may share an address (SO_REUSEPORT)
		e, failed := s.export(ctx, k, f)
		if failed == nil {
			return e, nil
		}
		if err = failed; !errors.Is(err, ErrUnknown) {
			break
		}
	}
	return nil, fmt.Errorf("export %v: %w", f, err)
}

func (s *Server) export(ctx context.Context, k *link, f Flow) (Exported, error) {
	id := s.lastID.Add(1)
	a, err := k.ask(ctx, wire.Message{Type: wire.Ask, ID: id, Local: f.Local, Remote: f.Remote}, -1, wire.Cancel)
	if err != nil {
		return nil, err
	}
	switch a.Type {
	case wire.Given:
		e := &exported{link: k, id: id, fd: a.fd, app: a.State}
		if err := isFlow(a.fd, f); err != nil {
			k.log.Warn("an application gave what it was not asked for", "flow", f, "err", err)
			closeDescriptor(a.fd)
			e.Back()
			return nil, &StaysError{"it gave another descriptor, or none"}
		}
		return e, nil
	case wire.Unknown:
		return nil, ErrUnknown
	default:
		return nil, declined(k, a)
	}
}

// declined makes an error of any answer but the one that was hoped for.
func declined(k *link, a answer) error {
	closeDescriptor(a.fd)
	switch a.Type {
	case wire.Stays, wire.Refused:
		return &StaysError{a.Text}
	case wire.Given, wire.Taken: // to a question of the other kind: counted as held
		k.settle(wire.Back, a.ID)
	}
	return &StaysError{"it answered with " + a.Type.String()}
}

// isFlow checks that a descriptor is the connection that it is said to be.
func isFlow(fd int, f Flow) error {
	if fd < 0 {
		return errors.New("no descriptor")
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return err
	}
	local, errLocal := unix.Getsockname(fd)
	remote, errRemote := unix.Getpeername(fd)
	if err := cmp.Or(errLocal, errRemote); err != nil {
		return err
	}
	is := Flow{addrPort(local), addrPort(remote)}
	if protocol != unix.IPPROTO_TCP || is != f {
		return fmt.Errorf("protocol %d, %v", protocol, is)
	}
	return nil
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return plain(netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)))
	default:
		return netip.AddrPort{}
	}
}

// Import implements Apps.
func (s *Server) Import(ctx context.Context, f Flow, fd int, app []byte) (Imported, error) {
	f = Flow{plain(f.Local), plain(f.Remote)}
	err := ErrUnknown
	for _, k := range s.serving(f.Local) {
		i, failed := s.importTo(ctx, k, f, fd, app)
		if failed == nil {
			return i, nil
		}
		if err = failed; ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("import %v: %w", f, err)
}

func (s *Server) importTo(ctx context.Context, k *link, f Flow, fd int, app []byte) (Imported, error) {
	if len(app) > wire.MaxState {
		return nil, &StaysError{fmt.Sprintf("its bytes are %d, at most %d can move", len(app), wire.MaxState)}
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("descriptor: %w", err)
	}
	id := s.lastID.Add(1)
	a, err := k.ask(ctx, wire.Message{Type: wire.Arrive, ID: id, Local: f.Local, Remote: f.Remote, State: app}, own, wire.Drop)
	if err != nil {
		return nil, err
	}
	if a.Type != wire.Taken {
		return nil, declined(k, a)
	}
	return &imported{link: k, id: id}, nil
}

type exported struct {
	link *link
	id   uint64
	fd   int
	app  []byte
	once sync.Once
}

func (e *exported) FD() int     { return e.fd }
func (e *exported) App() []byte { return e.app }
func (e *exported) Gone()       { e.once.Do(func() { e.link.settle(wire.Gone, e.id) }) }
func (e *exported) Back()       { e.once.Do(func() { e.link.settle(wire.Back, e.id) }) }

type imported struct {
	link *link
	id   uint64
	once sync.Once
}

func (i *imported) Live()   { i.once.Do(func() { i.link.settle(wire.Live, i.id) }) }
func (i *imported) Cancel() { i.once.Do(func() { i.link.settle(wire.Drop, i.id) }) }
