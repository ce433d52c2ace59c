package joiner

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/testnet"
)

// frame is an IGMP packet as it was on the wire.
type frame struct {
	bytes   []byte // Ethernet header first
	message igmp.Message
}

func (f frame) ip() []byte { return f.bytes[14:] }

// joins are the signed joins of a report of ours; ok says that it is one.
func (f frame) joins() (joins []join.Signed, ok bool) {
	r, isReport := f.message.(igmp.Report)
	if !isReport || len(r.Extensions) == 0 {
		return nil, false
	}
	joins, err := join.FromReport(r)
	return joins, err == nil
}

// names reports whether the frame is a report with a record of the group.
func (f frame) names(group netip.Addr) bool {
	r, ok := f.message.(igmp.Report)
	return ok && slices.ContainsFunc(r.Records, func(rec igmp.Record) bool { return rec.Group == group })
}

// tap collects the IGMP packets that an interface receives.
type tap struct {
	mu     sync.Mutex
	frames []frame
}

func startTap(t *testing.T, node *testnet.Node, ifname string) *tap {
	t.Helper()
	tap := &tap{}
	eachPacket(t, node, ifname, tap.take)
	return tap
}

// eachPacket calls f, from a goroutine of its own, with every IPv4 packet that the interface sees until the test ends.
func eachPacket(t *testing.T, node *testnet.Node, ifname string, f func(frame []byte)) {
	t.Helper()
	var file *os.File
	err := node.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "tap")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}), Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatalf("tap on %s: %v", ifname, err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { file.Close(); <-done })
	go func() {
		defer close(done)
		for b := make([]byte, 65536); ; {
			n, err := file.Read(b)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil && n >= 34 {
				f(slices.Clone(b[:n]))
			}
		}
	}()
}

func (p *tap) take(b []byte) {
	if b[14+9] != unix.IPPROTO_IGMP {
		return
	}
	header, total := int(b[14]&0xf)*4, int(binary.BigEndian.Uint16(b[14+2:]))
	m, err := igmp.Parse(b[14:][header:total])
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = append(p.frames, frame{b, m})
}

func (p *tap) all() []frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}

// count is the number of signed joins and leaves of the group that were seen.
func (p *tap) count(group netip.Addr) (joins, leaves int) {
	for _, f := range p.all() {
		list, _ := f.joins()
		for _, s := range list {
			switch {
			case s.Group != group:
			case s.Leave:
				leaves++
			default:
				joins++
			}
		}
	}
	return joins, leaves
}

// runLoop runs a Loop on the node's interface; end stops it.
func runLoop(t *testing.T, node *testnet.Node, ifname string) (l *Loop, end func()) {
	t.Helper()
	var socket Socket
	err := node.Do(func() (err error) {
		socket, err = Open(ifname, config.Requester)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ring := &Keyring{}
	ring.Set([]Key{{groupA, 7, key}, {groupB, 8, key}})
	j, err := New(config, ring, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	l = NewLoop(j, socket, false, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return l, end
}

// ask sends a query from the node's interface, to the group or, general, to all systems.
func ask(t *testing.T, node *testnet.Node, ifname string, q igmp.Query) {
	t.Helper()
	b, err := igmp.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	dst := netip.MustParseAddr("224.0.0.1")
	if !q.General() {
		dst = q.Group
	}
	err = node.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		c, err := net.ListenPacket("ip4:2", "0.0.0.0")
		if err != nil {
			return err
		}
		defer c.Close()
		p := ipv4.NewPacketConn(c)
		if err := errors.Join(p.SetMulticastInterface(ifi), p.SetMulticastTTL(1)); err != nil {
			return err
		}
		_, err = p.WriteTo(b, nil, &net.IPAddr{IP: dst.AsSlice()})
		return err
	})
	if err != nil {
		t.Fatalf("send query: %v", err)
	}
}

func TestNetReportOnTheWire(t *testing.T) {
	n := testnet.New(t)
	server, router := n.Node("server"), n.Node("router")
	n.Link(server, "eth0", "10.2.0.2/24", router, "down", "10.2.0.1/24")
	tap := startTap(t, router, "down")
	loop, end := runLoop(t, server, "eth0")
	if err := loop.Set(t.Context(), []Membership{member(groupA, 1, 300)}); err != nil {
		t.Fatal(err)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { n, _ := tap.count(groupA); return n >= 2 }, "two parts of the set")

	for _, f := range tap.all() {
		joins, ours := f.joins()
		if !ours {
			continue
		}
		ip := f.ip()
		if mac := net.HardwareAddr(f.bytes[:6]).String(); mac != "01:00:5e:00:00:16" {
			t.Errorf("sent to %s", mac)
		}
		if src, dst := netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])); src != config.Requester || dst.String() != "224.0.0.22" {
			t.Errorf("sent from %v to %v", src, dst)
		}
		if ip[8] != 1 || string(ip[20:24]) != routerAlert || ip[1] != 0xc0 || len(ip) > 1500 {
			t.Errorf("TTL %d, options %x, TOS %#x, %d bytes; want 1, router alert, 0xc0, one MTU", ip[8], ip[20:24], ip[1], len(ip))
		}
		for _, s := range joins {
			if !s.Verify(key.Public().(ed25519.PublicKey)) {
				t.Errorf("part %d of %d: bad signature", s.Part, s.Parts)
			}
		}
	}
	tshark(t, tap.all())

	maddr, err := server.Run("ip", "maddr", "show", "dev", "eth0")
	if err != nil || !strings.Contains(maddr, "01:00:5e:50:50:50") || strings.Contains(maddr, "239.80.80.80") {
		t.Errorf("ip maddr (%v) shows:\n%s\nwant the group's MAC address and no membership of the kernel's", err, maddr)
	}
	end()
	testnet.Eventually(t, 5*time.Second, func() bool { _, n := tap.count(groupA); return n == 1 }, "the leave")
	if maddr, _ = server.Run("ip", "maddr", "show", "dev", "eth0"); strings.Contains(maddr, "01:00:5e:50:50:50") {
		t.Errorf("after the end the interface still takes the group:\n%s", maddr)
	}
}

func TestNetQueriesAreAnsweredSignedOnly(t *testing.T) {
	n := testnet.New(t)
	server, router := n.Node("server"), n.Node("router")
	n.Link(server, "eth0", "10.2.0.2/24", router, "down", "10.2.0.1/24")
	tap := startTap(t, router, "down")
	loop, _ := runLoop(t, server, "eth0")
	if err := loop.Set(t.Context(), []Membership{member(groupA, 1, 1), member(groupB, 1, 1)}); err != nil {
		t.Fatal(err)
	}
	// An ordinary member beside ours: its report proves that the tap sees what the kernel sends.
	plain := netip.MustParseAddr("239.9.9.9")
	var ordinary net.PacketConn
	err := server.Do(func() (err error) {
		if ordinary, err = net.ListenPacket("udp4", "0.0.0.0:9"); err != nil {
			return err
		}
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		return ipv4.NewPacketConn(ordinary).JoinGroup(ifi, &net.UDPAddr{IP: plain.AsSlice()})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ordinary.Close()

	answered := func(group netip.Addr, q igmp.Query) {
		t.Helper()
		before, _ := tap.count(group)
		ask(t, router, "down", q)
		testnet.Eventually(t, 5*time.Second, func() bool { n, _ := tap.count(group); return n > before }, "an answer for ", group)
	}
	testnet.Eventually(t, 5*time.Second, func() bool { n, _ := tap.count(groupA); return n == config.Robustness }, "the change")
	answered(groupA, igmp.Query{Version: 3, MaxResp: 200 * time.Millisecond})
	answered(groupB, igmp.Query{Version: 3, MaxResp: 200 * time.Millisecond, Group: groupB})
	answered(groupA, igmp.Query{Version: 2, MaxResp: 200 * time.Millisecond, Group: groupA})

	kernel := func() bool {
		return slices.ContainsFunc(tap.all(), func(f frame) bool { _, ours := f.joins(); return f.names(plain) && !ours })
	}
	testnet.Eventually(t, 10*time.Second, kernel, "the kernel's own report of ", plain)
	for _, f := range tap.all() {
		if _, ours := f.joins(); !ours && (f.names(groupA) || f.names(groupB)) {
			t.Errorf("unsigned report for a group of ours: %+v", f.message)
		}
		if v2, ok := f.message.(igmp.V2Report); ok && v2.Group != plain {
			t.Errorf("unsigned IGMPv2 report for %v", v2.Group)
		}
	}
}

func TestNetOpenExplains(t *testing.T) {
	n := testnet.New(t)
	server, router := n.Node("server"), n.Node("router")
	n.Link(server, "eth0", "10.2.0.2/24", router, "down", "10.2.0.1/24")
	err := server.Do(func() error {
		if _, err := Open("eth7", config.Requester); err == nil || !strings.Contains(err.Error(), "eth7") {
			t.Errorf("error %v for a missing interface", err)
		}
		if _, err := Open("eth0", netip.MustParseAddr("10.2.0.9")); err == nil || !strings.Contains(err.Error(), "set `address`") {
			t.Errorf("error %v for a foreign address", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNetLinkGoesAway: an interface that goes down and up again is waited for, one that is deleted is not.
func TestNetLinkGoesAway(t *testing.T) {
	n := testnet.New(t)
	server, router := n.Node("server"), n.Node("router")
	n.Link(server, "eth0", "10.2.0.2/24", router, "down", "10.2.0.1/24")
	var socket Socket
	err := server.Do(func() (err error) {
		socket, err = Open("eth0", config.Requester)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	queries, failed := make(chan igmp.Query), make(chan error, 1)
	done := make(chan struct{})
	t.Cleanup(func() { socket.Close(); close(done) })
	go func() {
		for {
			q, err := socket.ReadQuery()
			if err != nil {
				failed <- err
				return
			}
			select {
			case queries <- q:
			case <-done:
				return
			}
		}
	}()
	run := func(argv ...string) {
		t.Helper()
		if out, err := server.Run(argv...); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out)
		}
	}
	asked := func() bool {
		ask(t, router, "down", igmp.Query{Version: 3, MaxResp: time.Second})
		select {
		case <-queries:
			return true
		case err := <-failed:
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
		return false
	}
	testnet.Eventually(t, 5*time.Second, asked, "a query")
	run("ip", "link", "set", "eth0", "down")
	select {
	case err := <-failed:
		t.Fatal("an interface that is down was given up: ", err)
	case <-time.After(3 * ifGoneCheck / 2):
	}
	run("ip", "link", "set", "eth0", "up")
	testnet.Eventually(t, 5*time.Second, asked, "a query after the interface is up again")
	run("ip", "link", "del", "eth0")
	select {
	case err := <-failed:
		if !errors.Is(err, ErrLinkGone) {
			t.Error(err)
		}
	case <-time.After(5 * ifGoneCheck):
		t.Error("nothing heard of the end of the interface")
	}
}

// tshark has the frames decoded by tshark and checks that it finds nothing wrong with any report.
func tshark(t *testing.T, frames []frame) {
	t.Helper()
	pcap := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	pcap = append(pcap, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0) // version 2.4, snap length, Ethernet
	for i, f := range frames {
		pcap = binary.LittleEndian.AppendUint32(pcap, uint32(i))
		pcap = append(pcap, 0, 0, 0, 0)
		pcap = binary.LittleEndian.AppendUint32(pcap, uint32(len(f.bytes)))
		pcap = binary.LittleEndian.AppendUint32(pcap, uint32(len(f.bytes)))
		pcap = append(pcap, f.bytes...)
	}
	path := filepath.Join(t.TempDir(), "reports.pcap")
	if err := os.WriteFile(path, pcap, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "tshark", "-r", path, "-V", "-O", "igmp")
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, out)
	}
	for _, bad := range []string{"Malformed", "incorrect", "Expert Info (Error", "Checksum Status: Bad"} {
		if strings.Contains(out, bad) {
			t.Errorf("tshark says %q:\n%s", bad, out)
		}
	}
	if !strings.Contains(out, "Group Record : "+groupA.String()+"  Change To Exclude Mode") || !strings.Contains(out, "Checksum Status: Good") {
		t.Errorf("tshark does not see the group:\n%s", out)
	}
}
