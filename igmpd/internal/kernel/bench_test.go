package kernel

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

// benchPath is one way through a router of its own.
type benchPath struct {
	metric string
	config func(r *rig) Config // nil: a router without igmpd, where the packet ends
	user   netip.Addr
	served bool // packets come to a server

	rig    *rig
	fd     int
	before int             // packets that the servers had
	took   []time.Duration // of each turn
}

// BenchmarkForward is the time of a 64-byte packet from the user's socket through the router into the server's namespace, all on
// one CPU, on each path in short turns of one run. "sender" ends in a router without igmpd, "unowned" at the classifier: nobody
// owns that user. The time of a turn is the median: what else the machine does hits some turns only.
func BenchmarkForward(b *testing.B) {
	const turn = 256
	owned, unowned := userAddr(101), userAddr(103)
	paths := []*benchPath{
		{metric: "ns/sender", user: owned},
		{metric: "ns/unowned", user: unowned, config: func(r *rig) Config { return rigConfig(ModeOwner, true, "", r.bpffs) }},
		{metric: "ns/table", user: owned, served: true, config: func(r *rig) Config { return rigConfig(ModeOwner, false, "", r.bpffs) }},
		{metric: "ns/accelerator", user: owned, served: true, config: func(r *rig) Config { return rigConfig(ModeOwner, true, "", r.bpffs) }},
		{metric: "ns/source", user: owned, served: true, config: func(*rig) Config { return rigConfig(ModeSource, false, "", "") }},
	}
	for _, p := range paths {
		p.open(b)
	}
	payload := make([]byte, 64-28)
	for b.Loop() {
		for _, p := range paths {
			began := time.Now()
			for range turn {
				if err := unix.Send(p.fd, payload, 0); err != nil {
					b.Fatal(err)
				}
			}
			p.took = append(p.took, time.Since(began))
		}
	}
	for _, p := range paths {
		sent := 0
		if p.served {
			sent = len(p.took) * turn
		}
		if got := p.received(b) - p.before; got < sent || got > sent+sent/100+100 { // and what the kernel has to say besides
			b.Errorf("%s: %d packets came to servers, want %d", p.metric, got, sent)
		}
		slices.Sort(p.took)
		b.ReportMetric(float64(p.took[len(p.took)/2])/turn, p.metric)
	}
	b.ReportMetric(0, "ns/op")
}

// open makes the path's rig.
func (p *benchPath) open(b *testing.B) {
	p.rig = newBareRig(b)
	p.fd = p.rig.blaster(p.user)
	if p.config != nil {
		p.rig.set(p.rig.open(p.config(p.rig)), rigState(quarters(b, 1, 2, 3)))
	}
	p.before = p.received(b)
	if p.served { // the entry of a source is made on its first packet
		testnet.Eventually(b, 5*time.Second, func() bool {
			unix.Send(p.fd, []byte("first"), 0)
			return p.received(b) > p.before+10
		}, p.metric, " carries packets")
		p.before = p.received(b)
	}
}

// received counts the packets that came to the interfaces of the servers.
func (p *benchPath) received(b *testing.B) (sum int) {
	for _, name := range []string{"s1", "s2", "s3"} {
		link, err := p.rig.net.Node(name).Netlink().LinkByName("eth0")
		if err != nil {
			b.Fatal(err)
		}
		sum += int(link.Attrs().Statistics.RxPackets)
	}
	return sum
}

// blaster is a connected socket without the runtime's poller around it.
func (r *rig) blaster(user netip.Addr) int {
	r.t.Helper()
	raw, err := r.sender(user).SyscallConn()
	if err != nil {
		r.t.Fatal(err)
	}
	fd := -1
	err = raw.Control(func(s uintptr) {
		if fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: 9000, Addr: group.As4()})
		}
	})
	if err == nil {
		err = unix.SetNonblock(fd, false)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { unix.Close(fd) })
	return fd
}
