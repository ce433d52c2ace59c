// Package mroute speaks to the Linux IPv4 multicast routing tables: the socket options of <linux/mroute.h> to change them,
// rtnetlink to read them back. A table lives as long as the socket that initialised it, in whichever process that is open.
package mroute

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// VIFsMax is the kernel's limit of virtual interfaces per table (MAXVIFS).
const VIFsMax = 32

// Socket options of level IPPROTO_IP, <linux/mroute.h>.
const (
	mrtInit        = 200
	mrtAddVIF      = 202
	mrtDelVIF      = 203
	mrtAddMFC      = 204
	mrtDelMFC      = 205
	mrtPIM         = 208
	mrtTable       = 209
	mrtAddMFCProxy = 210
	mrtDelMFCProxy = 211
	mrtFlush       = 212

	flushAll       = 15 // MFCs and VIFs, static ones too
	viffUseIfindex = 8
	siocGetSGCnt   = 0x89e1
)

// ttlOut is the threshold of an outgoing interface: packets leave with a TTL of more than that before the decrement.
const ttlOut = 1

// vifctl and mfcctl are the kernel's structures.
type vifctl struct {
	vif       uint16
	flags     uint8
	threshold uint8
	rateLimit uint32
	ifindex   int32
	remote    [4]byte
}

type mfcctl struct {
	origin, group         [4]byte
	parent                uint16
	ttls                  [VIFsMax]uint8
	_                     [2]byte
	packets, bytes, wrong uint32
	expire                int32
}

type sgReq struct {
	source, group         [4]byte
	packets, bytes, wrong uint64 // unsigned long
}

// VIFs is a set of VIF numbers, bit n for number n.
type VIFs uint32

// VIF returns the set of just n, 0 to 31.
func VIF(n int) VIFs { return 1 << n }

// Has says whether n is in the set.
func (v VIFs) Has(n int) bool { return v&VIF(n) != 0 }

// All yields the numbers in the set, ascending.
func (v VIFs) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for ; v != 0; v &= v - 1 {
			if !yield(v.First()) {
				return
			}
		}
	}
}

// First is the lowest number in the set, 32 of the empty set.
func (v VIFs) First() int { return bits.TrailingZeros32(uint32(v)) }

// Count is how many numbers are in the set.
func (v VIFs) Count() int { return bits.OnesCount32(uint32(v)) }

// Entry is one multicast forwarding cache entry. An invalid Source makes it a (*,G) proxy entry: the kernel then takes
// packets only from a Parent that is in Out as well, and sends nothing back to it. A (S,G) entry has one Parent per table.
type Entry struct {
	Source netip.Addr
	Group  netip.Addr
	Parent int
	Out    VIFs
}

// Any says whether e is a (*,G) entry.
func (e Entry) Any() bool { return !e.Source.IsValid() }

// Socket is the one socket that a table was initialised by, or a duplicate of it.
type Socket struct {
	file  *os.File
	table uint32
}

// Open initialises a table. It fails with an error that wraps unix.EADDRINUSE where the table has a socket already.
func Open(table uint32) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_IGMP)
	if err != nil {
		return nil, fmt.Errorf("raw IGMP socket (needs CAP_NET_RAW): %w", err)
	}
	if err := initTable(fd, table); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return FromFile(os.NewFile(uintptr(fd), fmt.Sprintf("mroute table %d", table)), table), nil
}

func initTable(fd int, table uint32) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtTable, int(table)); err != nil {
		return fmt.Errorf("choose multicast routing table %d (needs CONFIG_IP_MROUTE_MULTIPLE_TABLES and CAP_NET_ADMIN): %w", table, err)
	}
	if err := filterUpcalls(fd); err != nil {
		return err
	}
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtInit, 1)
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("multicast routing table %d belongs to another process%s; stop that one first: %w", table, suspects(), err)
	}
	if err != nil {
		return fmt.Errorf("initialise multicast routing table %d (needs CONFIG_IP_MROUTE and CAP_NET_ADMIN): %w", table, err)
	}
	return nil
}

// filterUpcalls lets nothing but the kernel's own messages (protocol byte 0, struct igmpmsg) into the receive buffer: IGMP
// proper is another socket's, and while nobody reads this one, it must not fill.
func filterUpcalls(fd int) error {
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 9},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	if err != nil {
		return fmt.Errorf("filter of the multicast routing socket: %w", err)
	}
	return nil
}

// FromFile takes over a socket that another process opened.
func FromFile(f *os.File, table uint32) *Socket { return &Socket{file: f, table: table} }

// File is the socket itself, to pass it on. It stays s's.
func (s *Socket) File() *os.File { return s.file }

// Table is the table's number.
func (s *Socket) Table() uint32 { return s.table }

// Close closes this copy of the socket. The table goes when it was the last.
func (s *Socket) Close() error { return s.file.Close() }

// Quiet keeps copies of router-alert packets, which the kernel makes for every table, from s. Upcalls still come.
func (s *Socket) Quiet() error {
	return s.control("bind to lo", func(fd int) error { return unix.BindToDevice(fd, "lo") })
}

// SameNamespace fails where the socket is of another network namespace than the calling thread.
func (s *Socket) SameNamespace() error {
	own, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(own)
	here, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return nil // Linux before 5.14 cannot tell
	}
	return s.control("network namespace", func(fd int) error {
		there, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		if err == nil && there != here {
			err = errors.New("the holder runs in another network namespace: start it in this one")
		}
		return err
	})
}

// ReportWrongInterface lets the kernel say when packets for a (S,G) entry come in by another interface than its parent.
func (s *Socket) ReportWrongInterface() error {
	return s.control("MRT_PIM", func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtPIM, 1) })
}

// AddVIF makes an interface VIF number vif. EADDRINUSE: the number is taken.
func (s *Socket) AddVIF(vif, ifindex int) error {
	v := vifctl{vif: uint16(vif), flags: viffUseIfindex, threshold: 1, ifindex: int32(ifindex)}
	return s.set(fmt.Sprintf("add VIF %d of interface index %d", vif, ifindex), mrtAddVIF, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

// DelVIF removes a VIF.
func (s *Socket) DelVIF(vif int) error {
	v := vifctl{vif: uint16(vif)}
	return s.set(fmt.Sprintf("delete VIF %d", vif), mrtDelVIF, unsafe.Pointer(&v), unsafe.Sizeof(v))
}

// Put adds an entry, or replaces the one of the same source and group (and parent, for a (*,G) entry) without a gap.
func (s *Socket) Put(e Entry) error {
	m, opt := e.mfcctl(), mrtAddMFC
	if e.Any() {
		opt = mrtAddMFCProxy
	}
	return s.set("add "+e.String(), opt, unsafe.Pointer(&m), unsafe.Sizeof(m))
}

// Delete removes an entry. ENOENT: there is none.
func (s *Socket) Delete(e Entry) error {
	m, opt := e.mfcctl(), mrtDelMFC
	if e.Any() {
		opt = mrtDelMFCProxy
	}
	return s.set("delete "+e.String(), opt, unsafe.Pointer(&m), unsafe.Sizeof(m))
}

// Flush removes all entries and VIFs.
func (s *Socket) Flush() error {
	return s.control("flush", func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, mrtFlush, flushAll) })
}

// Packets is how many packets an (S,G) entry has forwarded or dropped so far.
func (s *Socket) Packets(source, group netip.Addr) (uint64, error) {
	r := sgReq{source: source.As4(), group: group.As4()}
	err := s.control("SIOCGETSGCNT", func(fd int) error {
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), siocGetSGCnt, uintptr(unsafe.Pointer(&r))); e != 0 {
			return e
		}
		return nil
	})
	return r.packets, err
}

// String is the entry as `ip mroute` would have it.
func (e Entry) String() string {
	source := "*"
	if !e.Any() {
		source = e.Source.String()
	}
	return fmt.Sprintf("(%s, %s) from VIF %d to VIFs %#x", source, e.Group, e.Parent, uint32(e.Out))
}

func (e Entry) mfcctl() mfcctl {
	m := mfcctl{group: e.Group.As4(), parent: uint16(e.Parent)}
	if !e.Any() {
		m.origin = e.Source.As4()
	}
	for n := range VIFsMax {
		if e.Out.Has(n) {
			m.ttls[n] = ttlOut
		}
	}
	return m
}

func (s *Socket) set(what string, opt int, p unsafe.Pointer, n uintptr) error {
	return s.control(what, func(fd int) error {
		if _, _, e := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(opt), uintptr(p), n, 0); e != 0 {
			return e
		}
		return nil
	})
}

func (s *Socket) control(what string, do func(fd int) error) error {
	c, err := s.file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := c.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("multicast routing table %d: %s: %w", s.table, what, failed)
	}
	return nil
}
