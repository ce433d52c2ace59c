package probe

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
)

// Connection is one of TCP, by its user's end and the port to which it was made.
type Connection struct {
	User netip.AddrPort
	Port uint16
}

// Message is a datagram of UDP that was seen.
type Message struct {
	From, To netip.AddrPort
	Payload  []byte
}

// Paths follows users' connections on an interface that all their packets pass, and keeps what is sent to a UDP port of theirs.
type Paths struct {
	users    netip.Prefix
	port     uint16
	receiver *receiver

	mu       sync.Mutex
	paths    map[Connection][]netip.Addr
	messages []Message
}

// FollowPaths starts to follow the packets of users.
func FollowPaths(ns *netns.Namespace, ifname string, users netip.Prefix, port uint16) (*Paths, error) {
	p := &Paths{users: users, port: port, paths: map[Connection][]netip.Addr{}}
	var err error
	if p.receiver, err = receive(ns, ifname, false, p.take, fromUsers(users)...); err != nil {
		return nil, err
	}
	return p, nil
}

// fromUsers takes TCP of users, and UDP: the rest is too much to look at.
func fromUsers(users netip.Prefix) []bpf.Instruction {
	first := users.Masked().Addr().As4()
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: uint32(32 - users.Bits())},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(first[:]) >> (32 - users.Bits()), SkipTrue: 1},
		bpf.RetConstant{Val: 256},
		bpf.RetConstant{Val: 0},
	}
}

const (
	ipBytes  = 20
	udpBytes = 8
	tcpBytes = 20

	syn    = 2 // among a segment's flags
	synACK = syn | 16
)

func (p *Paths) take(b []byte, _ time.Time, _ bool) {
	if len(b) < ipBytes+udpBytes || b[0] != 0x45 {
		return
	}
	end := func(addr, port int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[addr:addr+4])), binary.BigEndian.Uint16(b[port:]))
	}
	from, to := end(12, ipBytes), end(16, ipBytes+2)
	switch {
	case b[9] == unix.IPPROTO_TCP && len(b) >= ipBytes+tcpBytes && p.users.Contains(from.Addr()):
		p.packet(Connection{from, to.Port()}, to.Addr(), b[ipBytes+13]&synACK == syn)
	case b[9] == unix.IPPROTO_UDP && to.Port() == p.port && p.users.Contains(to.Addr()):
		p.mu.Lock()
		defer p.mu.Unlock()
		p.messages = append(p.messages, Message{from, to, append([]byte(nil), b[ipBytes+udpBytes:]...)})
	}
}

func (p *Paths) packet(c Connection, to netip.Addr, opens bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch path := p.paths[c]; {
	case opens: // another one may have had the port
		p.paths[c] = []netip.Addr{to}
	case len(path) == 0 || path[len(path)-1] != to:
		p.paths[c] = append(path, to)
	}
}

// Of is where the packets of a connection went so far: each time when it was another address than before.
func (p *Paths) Of(c Connection) []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.paths[c])
}

// All has the paths of all connections, as Of has those of one.
func (p *Paths) All() map[Connection][]netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.paths)
}

// Messages are those so far, in order. They are not to be changed.
func (p *Paths) Messages() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages
}

// Stop ends it. What was not seen makes it an error.
func (p *Paths) Stop() error { return p.receiver.stop() }
