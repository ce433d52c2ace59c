package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/packetsock"
)

const (
	receiveBuffer = 4 << 20     // bytes: what a thousand members say in several seconds
	lookEvery     = time.Second // for interfaces that come, go or are made anew
	precedence    = 0xc0        // internetwork control: heartbeats go before what they watch
)

// LinkConfig says where frames go.
type LinkConfig struct {
	Group      netip.Addr
	Port       uint16
	Address    netip.Addr // of this machine: the source of its frames
	Interfaces []string
	TTL        int
	Log        *slog.Logger
}

// Link is the Transport on interfaces: packet sockets hear the group without a membership of the kernel's, which would report
// itself unsigned. CAP_NET_RAW is enough.
type Link struct {
	cfg  LinkConfig
	send int // UDP socket

	mu    sync.Mutex
	ports map[string]*port
	told  map[string]string // the last error of each interface
}

// port is an interface that is there.
type port struct {
	index int
	file  *os.File
}

var _ Transport = (*Link)(nil)

// OpenLink opens the sockets. Interfaces that are not there yet are taken when they come.
func OpenLink(cfg LinkConfig) (*Link, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("control channel: %w", err)
	}
	err = errors.Join(
		packetsock.AttachFilter(fd, packetsock.Nothing),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, cfg.TTL),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, precedence),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("control channel: %w", err), unix.Close(fd))
	}
	l := &Link{cfg: cfg, send: fd, ports: make(map[string]*port), told: make(map[string]string)}
	for _, name := range cfg.Interfaces {
		err := l.look(name)
		if errors.Is(err, unix.EPERM) {
			return nil, errors.Join(fmt.Errorf("control channel on %s: %w: needs CAP_NET_RAW", name, err), l.close())
		}
		l.tell(name, err)
	}
	return l, nil
}

// Run implements Transport.
func (l *Link) Run(ctx context.Context, packets chan<- Packet) error {
	var readers sync.WaitGroup
	reading := make(map[string]*port)
	start := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for name, p := range l.ports {
			if reading[name] != p {
				reading[name] = p
				readers.Go(func() { l.read(ctx, name, p, packets) })
			}
		}
	}
	start()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			err := l.close()
			readers.Wait()
			return err
		case <-tick.C:
		}
		for _, name := range l.cfg.Interfaces {
			l.tell(name, l.look(name))
		}
		start()
	}
}

// look opens an interface that has come, and closes one that is gone or another one now.
func (l *Link) look(name string) error {
	ifi, err := net.InterfaceByName(name)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.ports[name]
	if p != nil && (err != nil || ifi.Index != p.index) {
		delete(l.ports, name)
		if err := p.file.Close(); err != nil {
			return err
		}
		p = nil
	}
	if err != nil || p != nil {
		return err
	}
	file, err := packetsock.Open(packetsock.Config{Ifindex: ifi.Index, Name: "control-" + name, Filter: filter(l.cfg.Group, l.cfg.Port), Buffer: receiveBuffer})
	if err != nil {
		return err
	}
	if err := packetsock.Join(file, ifi.Index, l.cfg.Group); err != nil {
		return errors.Join(err, file.Close())
	}
	l.ports[name] = &port{ifi.Index, file}
	return nil
}

// tell logs an error that stays only once, and its end.
func (l *Link) tell(name string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch before := l.told[name]; {
	case text == before:
		return
	case err != nil:
		l.cfg.Log.Warn("control channel is not heard on an interface", "interface", name, "err", err)
	case before != "":
		l.cfg.Log.Info("control channel is heard again", "interface", name)
	}
	l.told[name] = text
}

// read hands packets on until the socket is closed. An interface that is down makes reads fail once, and works again when it is up.
func (l *Link) read(ctx context.Context, name string, p *port, packets chan<- Packet) {
	buffer := make([]byte, math.MaxUint16)
	for {
		n, err := p.file.Read(buffer)
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			return
		}
		packet, ok := parse(buffer[:n], l.cfg.Group, l.cfg.Port)
		if !ok {
			continue
		}
		packet.Interface, packet.Payload = name, slices.Clone(packet.Payload)
		select {
		case packets <- packet:
		case <-ctx.Done():
			return
		}
	}
}

// Send implements Transport.
func (l *Link) Send(payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := &unix.SockaddrInet4{Addr: l.cfg.Group.As4(), Port: int(l.cfg.Port)}
	failed := []error{ErrNowhere}
	for name, p := range l.ports {
		by := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: int32(p.index), Spec_dst: l.cfg.Address.As4()})
		if err := unix.Sendmsg(l.send, payload, by, to, unix.MSG_DONTWAIT); err != nil {
			failed = append(failed, fmt.Errorf("%s, from %v: %w", name, l.cfg.Address, err))
		}
	}
	if len(failed) <= len(l.ports) {
		return nil // at least one went out
	}
	return errors.Join(failed...)
}

func (l *Link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := unix.Close(l.send)
	for _, p := range l.ports {
		err = errors.Join(err, p.file.Close())
	}
	clear(l.ports)
	return err
}

// filter takes whole UDP packets to the group and port; offsets are from the IP header.
func filter(group netip.Addr, port uint16) []bpf.Instruction {
	g := group.As4()
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(g[:]), SkipTrue: 6},
		bpf.LoadAbsolute{Off: 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 4}, // a fragment
		bpf.LoadMemShift{Off: 0},
		bpf.LoadIndirect{Off: 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(port), SkipTrue: 1},
		bpf.RetConstant{Val: math.MaxUint16},
		bpf.RetConstant{Val: 0},
	}
}

// parse takes the UDP payload out of an IP packet. Its checksum is not looked at: each frame has a MAC.
func parse(b []byte, group netip.Addr, port uint16) (Packet, bool) {
	const udpHeader = 8
	if len(b) < 20 || b[0]>>4 != 4 {
		return Packet{}, false
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < 20 || total > len(b) || total < header+udpHeader || b[9] != unix.IPPROTO_UDP {
		return Packet{}, false
	}
	udp := b[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if netip.AddrFrom4([4]byte(b[16:20])) != group || binary.BigEndian.Uint16(udp[2:]) != port || length < udpHeader || length > len(udp) {
		return Packet{}, false
	}
	return Packet{Source: netip.AddrFrom4([4]byte(b[12:16])), Payload: udp[udpHeader:length]}, true
}
