package serving

import (
	"net/netip"

	"github.com/manycast/manycast/lbd/internal/dyntcp/kernel"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// Plain is what is done to sockets of any connections: mover.Kernel, or a fake.
type Plain interface {
	Freeze(fd int) (Socket, []byte, error)
	Drop(fd int) error
	Restore(local, remote netip.AddrPort, state []byte) (Socket, error)
}

// Socket is mover.Socket.
type Socket = interface {
	FD() int
	Thaw() error
	Close() error
}

// Sockets are those, beside which what is known of connections that can move is taken, given and told; a mover.Sockets. States of connections that cannot
// move stay as they are.
type Sockets struct {
	Plain
	loop *Loop
}

// Sockets returns s with that.
func (l *Loop) Sockets(s Plain) Sockets { return Sockets{s, l} }

// Freeze implements mover.Sockets.
func (s Sockets) Freeze(fd int) (Socket, []byte, error) {
	held, can := s.loop.held(fd)
	if !can {
		return s.Plain.Freeze(fd)
	}
	flow, err := s.loop.cfg.FlowOf(fd)
	if err != nil {
		return nil, nil, err
	}
	socket, plain, err := s.Plain.Freeze(fd)
	if err != nil {
		return nil, nil, err
	}
	state := s.loop.giving(flow, held)
	return &frozen{Socket: socket, loop: s.loop, flow: flow}, append(state.Append(make([]byte, 0, state.Size()+len(plain))), plain...), nil
}

// frozen is a connection that is being given away.
type frozen struct {
	Socket
	loop   *Loop
	flow   kernel.Flow
	thawed bool
}

// Thaw implements mover.Socket: it was not given away.
func (f *frozen) Thaw() error {
	f.thawed = true
	err := f.Socket.Thaw()
	if err == nil {
		f.loop.stays(f.flow)
	}
	return err
}

// Close implements mover.Socket. Who has it now is sent what its user still sends here, from before there is no socket.
func (f *frozen) Close() error {
	if !f.thawed {
		f.loop.given(f.flow)
	}
	return f.Socket.Close()
}

// Restore implements mover.Sockets.
func (s Sockets) Restore(local, remote netip.AddrPort, b []byte) (Socket, error) {
	state, plain, can, err := Decode(b)
	if err != nil {
		return nil, err
	}
	socket, err := s.Plain.Restore(local, remote, plain)
	if err != nil || !can {
		return socket, err
	}
	r, err := s.adopt(socket, state)
	if err != nil {
		_ = socket.Close() // it does not live
		return nil, err
	}
	return r, nil
}

func (s Sockets) adopt(socket Socket, state State) (*restored, error) {
	flow, err := s.loop.cfg.FlowOf(socket.FD())
	if err != nil {
		return nil, err
	}
	change, err := s.loop.adopt(socket.FD(), flow, state)
	if err != nil {
		return nil, err
	}
	return &restored{Socket: socket, loop: s.loop, places: state.Places, change: change}, nil
}

// restored is a connection that is being taken.
type restored struct {
	Socket
	loop   *Loop
	change wire.Change
	places []netip.AddrPort
	thawed bool
}

// Thaw implements mover.Socket.
func (r *restored) Thaw() error {
	err := r.Socket.Thaw()
	r.thawed = err == nil
	return err
}

// Close implements mover.Socket. Its user hears of a connection that lives from now on, and not before: what the application has to say has not to wait
// for a signature.
func (r *restored) Close() error {
	if r.thawed {
		r.loop.took(r.change, r.places)
	}
	return r.Socket.Close()
}
