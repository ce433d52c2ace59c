package dataplane

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
)

// BenchmarkNetKeep measures what the ingress program does with a packet: one that is for no service, one of a service that keeps no
// connections, and of one that does the packet of a known connection, of a known flow of UDP, and one that is sent to a former owner.
// The least of seven, all in turns of one run, the program loaded with all capabilities as in steer's benchmark.
func BenchmarkNetKeep(b *testing.B) {
	n := testnet.New(b)
	node := n.Node("server")
	n.Link(node, "eth0", "10.2.0.1/24", n.Node("other"), "eth0", "")
	if out, err := node.Run("sh", "-c", "ip link set lo up; ip addr add "+testUser+"/32 dev lo"); err != nil {
		b.Fatal(out)
	}
	var a *agent
	set := func(keeps bool) {
		s := AgentService{VIP: addr(testVIP), Tagged: true, Ports: []Port{tcp(80), udp(53)}, Keeps: keeps, Accept: portion.Union{odd}}
		if keeps {
			s.Chains = []Chain{{Users: everybody, Hops: []Hop{{addr("10.2.0.9"), 5}}}}
		}
		if err := node.Do(func() error { return a.Set([]AgentService{s}) }); err != nil {
			b.Fatal(err)
		}
	}
	err := node.Do(func() (err error) {
		a, err = loadAgentPlane(AgentConfig{
			Interface: "eth0", VIPDevice: "lo", Bpffs: filepath.Join(n.BPFFS(), "agent"),
			Forward: Forward{Port: sitePort, Device: forwardDevice, Idle: time.Hour},
		})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { node.Do(func() error { return a.Close(false) }) })
	set(false)
	port := connectedPort(b, node)
	known := packet{src: testUser, dst: testVIP, proto: protoTCP, payload: tcpSegment(port, 80, flagACK, nil, "hello")}
	unknown := packet{src: testUser, dst: testVIP, proto: protoTCP, payload: tcpSegment(port+1, 80, flagACK, nil, "hello")}
	datagram := packet{src: testUser, dst: testVIP, proto: protoUDP, payload: udpDatagram(port, 53, "hello")}
	other := known
	other.dst = "192.0.2.81"
	flow := newFlowMapKey(Flow{netip.AddrPortFrom(addr(testUser), port), netip.AddrPortFrom(addr(testVIP), 53)})
	flow.Proto = protoUDP
	now, err := sinceBoot()
	if err == nil {
		err = a.coll.Maps[agentMapSeen].Put(flow, uint64(now))
	}
	if err != nil {
		b.Fatal(err)
	}
	runs := []struct {
		metric string
		keeps  bool
		packet packet
		want   uint32
		least  time.Duration
	}{
		{"ns/other", false, other, verdictNext, math.MaxInt64},
		{"ns/plain", false, known, verdictNext, math.MaxInt64},
		{"ns/known", true, known, verdictNext, math.MaxInt64},
		{"ns/known-udp", true, datagram, verdictNext, math.MaxInt64},
		{"ns/unknown", true, unknown, verdictRedirect, math.MaxInt64},
	}
	for b.Loop() {
		for i := range runs {
			r := &runs[i]
			set(r.keeps)
			r.least = min(r.least, fastest(b, node, a.coll.Programs[agentProgAgentIngress], r.packet.frame(), r.want))
		}
	}
	for _, r := range runs {
		b.ReportMetric(float64(r.least), r.metric)
	}
	b.ReportMetric(0, "ns/op")
}

// connectedPort is the port of a user's connection to the VIP's port 80.
func connectedPort(b *testing.B, node *testnet.Node) (port uint16) {
	b.Helper()
	l, err := node.Listen("tcp4", testVIP+":80")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: addr(testUser).AsSlice()}}
	err = node.Do(func() error {
		for range 100 {
			c, err := d.Dial("tcp4", testVIP+":80")
			if err != nil {
				return err
			}
			b.Cleanup(func() { c.Close() })
			port = c.LocalAddr().(*net.TCPAddr).AddrPort().Port()
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return port
}

// fastest returns the least time that one run of the program took.
func fastest(b *testing.B, node *testnet.Node, p *ebpf.Program, frame []byte, want uint32) time.Duration {
	b.Helper()
	least := time.Duration(math.MaxInt64)
	err := node.Do(func() error { // sockets are looked up in the caller's namespace
		for range 7 {
			verdict, took, err := p.Benchmark(frame, 300_000, nil)
			if err != nil {
				return err
			}
			if verdict != want {
				return fmt.Errorf("verdict %#x, want %#x", verdict, want)
			}
			least = min(least, took)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return least
}

// BenchmarkNetForward measures a packet's whole way, sender included, where the user's server has it at once and where another one
// forwards it by VXLAN; and an upload of 256 MiB likewise. All in turns of one run; the least of seven for packets, the best of five for uploads.
func BenchmarkNetForward(b *testing.B) {
	s := newSite(b, "a", "b")
	s.widen()
	s.idle = time.Hour
	s.start("a")
	s.sink("a")
	flow := s.dialTo("udp", sinkPort)
	upload := s.dialTo("tcp", 80).(*net.TCPConn)
	go io.Copy(io.Discard, upload)
	direct, forwarded := time.Duration(math.MaxInt64), time.Duration(math.MaxInt64)
	directRate, forwardedRate := 0.0, 0.0
	if _, err := flow.Write([]byte("so that a knows it")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i := range 7 {
			s.move("a")
			direct = min(direct, s.blast(b, flow))
			if i < 5 {
				directRate = max(directRate, s.upload(b, upload))
			}
			s.move("b")
			forwarded = min(forwarded, s.blast(b, flow))
			if i < 5 {
				forwardedRate = max(forwardedRate, s.upload(b, upload))
			}
		}
	}
	if c := s.counters("a"); c.ForwardedIn == 0 || c.ForwardReturned != 0 {
		b.Errorf("a counted %+v", c)
	}
	b.ReportMetric(float64(direct), "ns/direct")
	b.ReportMetric(float64(forwarded), "ns/forwarded")
	b.ReportMetric(directRate, "MB/s-direct")
	b.ReportMetric(forwardedRate, "MB/s-forwarded")
	b.ReportMetric(0, "ns/op")
}

// sink opens a server's socket that nobody reads.
func (s *site) sink(name string) {
	s.t.Helper()
	s.in(name, func() error {
		c, err := net.ListenPacket("udp4", net.JoinHostPort(testVIP, strconv.Itoa(sinkPort)))
		if err == nil {
			s.t.Cleanup(func() { c.Close() })
		}
		return err
	})
}

func (s *site) dialTo(network string, port int) net.Conn {
	s.t.Helper()
	var conn net.Conn
	err := s.users.Do(func() (err error) {
		conn, err = net.Dial(network, net.JoinHostPort(testVIP, strconv.Itoa(port)))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// blast sends packets until a has delivered as many, and returns the time of one.
func (s *site) blast(b *testing.B, flow net.Conn) time.Duration {
	b.Helper()
	const packets = 100_000
	before := s.counters("a").Delivered
	start := time.Now()
	for range packets {
		if _, err := flow.Write([]byte("0123456789abcdef")); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(start) / packets
	testnet.Eventually(b, time.Second, func() bool { return s.counters("a").Delivered-before >= packets*99/100 }, "all but 1 % is delivered")
	return took
}

// upload returns how many megabytes a second the server takes.
func (s *site) upload(b *testing.B, conn net.Conn) float64 {
	b.Helper()
	const size = 256 << 20
	chunk := make([]byte, 1<<20)
	start := time.Now()
	for range size / len(chunk) {
		if _, err := conn.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	return size / 1e6 / time.Since(start).Seconds()
}
