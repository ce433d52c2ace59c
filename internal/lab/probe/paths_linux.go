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

// Handshake is what a SYN of a user's and the SYN-ACK to it had in options. Of a SYN that is sent again it is the first.
type Handshake struct {
	Connection
	Request, Answer []byte
}

// Paths follows users' connections on an interface that all their packets pass, and keeps how they were made, and what is sent to a UDP port of theirs.
type Paths struct {
	users    netip.Prefix
	port     uint16
	receiver *receiver

	mu       sync.Mutex
	paths    map[Connection][]netip.Addr
	requests map[Connection]request
	shaken   []Handshake
	messages []Message
}

// request is a SYN, and whether it has been answered.
type request struct {
	sequence uint32
	options  []byte
	answered bool
}

// FollowPaths starts to follow the packets of users.
func FollowPaths(ns *netns.Namespace, ifname string, users netip.Prefix, port uint16) (*Paths, error) {
	p := &Paths{users: users, port: port, paths: map[Connection][]netip.Addr{}, requests: map[Connection]request{}}
	var err error
	if p.receiver, err = receive(ns, ifname, false, p.take, ofUsers(users)...); err != nil {
		return nil, err
	}
	return p, nil
}

// ofUsers takes TCP of users, SYN-ACKs to them, and UDP: the rest is too much to look at.
func ofUsers(users netip.Prefix) []bpf.Instruction {
	first, other := users.Masked().Addr().As4(), uint32(32-users.Bits())
	network := binary.BigEndian.Uint32(first[:]) >> other
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 10},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_TCP, SkipTrue: 10},
		bpf.LoadAbsolute{Off: 12, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: other},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: network, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: other},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: network, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ipBytes + flagsAt, Size: 1}, // what has options of IP take does not look at
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: synACK},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: synACK, SkipTrue: 1},
		bpf.RetConstant{Val: 256},
		bpf.RetConstant{Val: 0},
	}
}

const (
	ipBytes  = 20
	udpBytes = 8
	tcpBytes = 20
	flagsAt  = 13 // in the header of TCP

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
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case b[9] == unix.IPPROTO_TCP && len(b) >= ipBytes+tcpBytes:
		p.segment(from, to, b[ipBytes:])
	case b[9] == unix.IPPROTO_UDP && to.Port() == p.port && p.users.Contains(to.Addr()):
		p.messages = append(p.messages, Message{from, to, append([]byte(nil), b[ipBytes+udpBytes:]...)})
	}
}

func (p *Paths) segment(from, to netip.AddrPort, tcp []byte) {
	flags := tcp[flagsAt] & synACK
	if p.users.Contains(from.Addr()) {
		c := Connection{from, to.Port()}
		p.packet(c, to.Addr(), flags == syn)
		if sequence := binary.BigEndian.Uint32(tcp[4:]); flags == syn && p.requests[c].sequence != sequence {
			p.requests[c] = request{sequence: sequence, options: optionsOf(tcp)}
		}
	}
	if flags == synACK && p.users.Contains(to.Addr()) {
		c := Connection{to, from.Port()}
		if r, ok := p.requests[c]; ok && !r.answered && binary.BigEndian.Uint32(tcp[8:]) == r.sequence+1 {
			p.shaken = append(p.shaken, Handshake{c, r.options, optionsOf(tcp)})
			r.answered = true
			p.requests[c] = r
		}
	}
}

// optionsOf are those of a segment, as far as they were seen.
func optionsOf(tcp []byte) []byte {
	end := min(int(tcp[12]>>4)*4, len(tcp))
	return append([]byte(nil), tcp[tcpBytes:max(tcpBytes, end)]...)
}

func (p *Paths) packet(c Connection, to netip.Addr, opens bool) {
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

// Handshakes are those so far, in order. They are not to be changed.
func (p *Paths) Handshakes() []Handshake {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shaken
}

// Messages are those so far, in order. They are not to be changed.
func (p *Paths) Messages() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.messages
}

// Stop ends it. What was not seen makes it an error.
func (p *Paths) Stop() error { return p.receiver.stop() }
