package kernel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/manycast/manycast/igmpd/internal/kernel/holder"
	"github.com/manycast/manycast/internal/daemon"
	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// The test binary is a holder or a forwarder, too, so that there are processes to kill. What it is told is in helperEnv.
const helperEnv = "MANYCAST_KERNEL_TEST_HELPER"

func TestMain(m *testing.M) {
	words := strings.Split(os.Getenv(helperEnv), " ")
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	var err error
	switch words[0] {
	case "":
		os.Exit(m.Run())
	case "holder":
		err = holder.New(words[1], daemon.FDStore{}, log).Run(ctx)
	case "forward":
		err = forward(ctx, words[1:], log)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// forward is what igmpd does with a Forwarder; quarters owned by s1 to s3. Arguments: mode, accelerator, holder, bpffs.
func forward(ctx context.Context, args []string, log *slog.Logger) error {
	l, err := Open(rigConfig(Mode(args[0]), args[1] == "true", args[2], args[3]), log)
	if err != nil {
		return err
	}
	plan, err := steer.Compile(quarterClaims(1, 2, 3))
	if err != nil {
		return err
	}
	if err := l.Set(rigState(plan)); err != nil {
		return err
	}
	fmt.Println("ready")
	return errors.Join(l.Run(ctx), l.Close(false))
}

func rigConfig(mode Mode, accelerator bool, holder, bpffs string) Config {
	return Config{Holder: holder, Mode: mode, Accelerator: accelerator, Mark: 0x4d000000, MarkMask: 0xff000fff, TableBase: 10000,
		SourceEntriesMax: 1000, BPFFS: bpffs}
}

func rigState(plan *steer.Plan) State {
	return State{
		Interfaces: interfaces("users", "s1", "s2", "s3"),
		Private: map[netip.Addr]Private{group: {
			Plan: plan, Owners: map[steer.Owner]string{1: "s1", 2: "s2", 3: "s3"}, In: []string{"users"},
		}},
	}
}

// rig is user - router - three servers.
type rig struct {
	t            testing.TB
	net          *testnet.Net
	user, router *testnet.Node
	bpffs        string
	socket       string // of the holder
	arrivals     chan arrival
	nextRun      int
}

type arrival struct {
	server int // 1 to 3
	source netip.Addr
	text   string
}

// newRig is a rig whose servers have all joined the groups.
func newRig(t testing.TB) *rig {
	r := newBareRig(t)
	for i := 1; i <= 3; i++ {
		r.listen(r.net.Node(fmt.Sprintf("s%d", i)), i)
	}
	return r
}

// newBareRig is a rig whose servers do not listen.
func newBareRig(t testing.TB) *rig {
	n := testnet.New(t)
	r := &rig{t: t, net: n, user: n.Node("user"), router: n.Node("r"), bpffs: filepath.Join(n.BPFFS(), "igmpd"),
		socket: filepath.Join(t.TempDir(), "holder.sock"), arrivals: make(chan arrival, 1<<16)}
	n.Link(r.user, "eth0", "10.0.1.2/24", r.router, "users", "10.0.1.1/24")
	r.user.Route("default", "10.0.1.1")
	r.router.Sysctl("net.ipv4.ip_forward", "1")
	for i := 1; i <= 3; i++ {
		s := n.Node(fmt.Sprintf("s%d", i))
		n.Link(r.router, fmt.Sprintf("s%d", i), fmt.Sprintf("10.0.1%d.1/24", i), s, "eth0", fmt.Sprintf("10.0.1%d.2/24", i))
		s.Route("default", fmt.Sprintf("10.0.1%d.1", i))
	}
	return r
}

// listen passes on what a server's application gets, of both groups.
func (r *rig) listen(s *testnet.Node, server int) {
	var c *net.UDPConn
	if err := s.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if c, err = net.ListenMulticastUDP("udp4", ifi, &net.UDPAddr{IP: group.AsSlice(), Port: 9000}); err != nil {
			return err
		}
		return ipv4.NewPacketConn(c).JoinGroup(ifi, &net.UDPAddr{IP: publicGrp.AsSlice()})
	}); err != nil {
		r.t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.arrivals <- arrival{server, from.Addr().Unmap(), string(buf[:min(n, 64)])}
		}
	})
	r.t.Cleanup(func() { c.Close(); done.Wait() })
}

// sender is a socket of the user with any source address.
func (r *rig) sender(source netip.Addr) *net.UDPConn {
	r.t.Helper()
	any := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1),
				unix.SetsockoptInet4Addr(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, [4]byte{10, 0, 1, 2}),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 8))
		}); e != nil {
			return e
		}
		return err
	}}
	var c net.PacketConn
	if err := r.user.Do(func() (err error) {
		c, err = any.ListenPacket(context.Background(), "udp4", netip.AddrPortFrom(source, 0).String())
		return err
	}); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

func (r *rig) send(group, source netip.Addr, text string) {
	r.t.Helper()
	c := r.sender(source)
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(group, 9000)); err != nil {
		r.t.Fatal(err)
	}
	c.Close()
}

func userAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}) }

// expect sends a packet of each of 32 users and checks that exactly the right server gets each: of users that end in the bits n
// server servers[n], none for 0.
func (r *rig) expect(group netip.Addr, servers ...int) {
	r.t.Helper()
	r.nextRun++
	missing := 0
	for i := range 32 {
		r.send(group, userAddr(100+i), fmt.Sprintf("%d", r.nextRun))
		if servers[i%4] != 0 {
			missing++
		}
	}
	timeout := time.After(5 * time.Second)
	for missing > 0 {
		select {
		case a := <-r.arrivals:
			n := int(a.source.As4()[3])
			if a.text != fmt.Sprint(r.nextRun) || servers[n%4] != a.server {
				r.t.Errorf("%s of %v came to server %d, want server %d", a.text, a.source, a.server, servers[n%4])
			}
			missing--
		case <-timeout:
			out, _ := r.router.Run("sh", "-c", "ip -s mroute show table all; ip mrule; cat /proc/net/snmp /proc/net/ip_mr_vif; nstat -az | grep -i filter")
			r.t.Fatalf("run %d: %d packets did not come\n%s", r.nextRun, missing, out)
		}
	}
}

// next is the next packet that comes to any server.
func (r *rig) next() arrival {
	r.t.Helper()
	select {
	case a := <-r.arrivals:
		return a
	case <-time.After(5 * time.Second):
		r.t.Fatal("no packet came")
		panic("unreachable")
	}
}

// quiet checks that nothing more has come.
func (r *rig) quiet() {
	r.t.Helper()
	select {
	case a := <-r.arrivals:
		r.t.Errorf("%q of %v came to server %d", a.text, a.source, a.server)
	default:
	}
}

// helper starts the test binary as something else inside the router.
func (r *rig) helper(words ...string) *testnet.Process {
	return r.router.Start("env", helperEnv+"="+strings.Join(words, " "), os.Args[0])
}

func (r *rig) startHolder() *testnet.Process {
	p := r.helper("holder", r.socket)
	testnet.Eventually(r.t, 5*time.Second, func() bool { return strings.Contains(p.Output(), "listens") }, "the holder listens")
	return p
}

func (r *rig) startForwarder(mode Mode, accelerator bool) *testnet.Process {
	p := r.helper("forward", string(mode), fmt.Sprint(accelerator), r.socket, r.bpffs)
	testnet.Eventually(r.t, 5*time.Second, func() bool { return strings.Contains(p.Output(), "ready") || strings.Contains(p.Output(), "failed") }, "the forwarder is ready")
	if strings.Contains(p.Output(), "failed") {
		r.t.Fatal(p.Output())
	}
	return p
}

// openOnce makes a Forwarder of this process inside the router, which has to be closed.
func (r *rig) openOnce(config Config) *Linux {
	r.t.Helper()
	var l *Linux
	open := func() (err error) {
		l, err = Open(config, slog.New(slog.NewTextHandler(r.t.Output(), nil)))
		return err
	}
	if err := r.router.Do(func() error { // as the unit
		return testnet.WithCapabilities(open, unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	}); err != nil {
		r.t.Fatal(err)
	}
	return l
}

// open makes a Forwarder that answers upcalls, and removes everything at the end.
func (r *rig) open(config Config) *Linux {
	r.t.Helper()
	l := r.openOnce(config)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, r.router.Do(func() error { return l.Close(false) })); err != nil {
			r.t.Errorf("Run, Close: %v", err)
		}
		r.nothingLeft()
	})
	return l
}

func (r *rig) closeKeeping(l *Linux) {
	r.t.Helper()
	if err := r.router.Do(func() error { return l.Close(true) }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) set(l *Linux, s State) {
	r.t.Helper()
	if err := r.router.Do(func() error { return l.Set(s) }); err != nil {
		r.t.Fatal(err)
	}
}

// nothingLeft checks that the router's kernel is as it was before.
func (r *rig) nothingLeft() {
	r.t.Helper()
	for command, want := range map[string]string{
		"ip mroute show table all": "",
		"ip mrule":                 "32767:\tfrom all lookup default",
		"cat /proc/thread-self/net/ip_mr_vif | tail -n +2": "",
		"tc filter show dev users ingress":                 "",
		"ls " + r.bpffs + " 2>/dev/null":                   "",
	} {
		// The test's own context has ended already during its clean-up.
		out, _ := r.router.Command(context.Background(), "sh", "-c", command).CombinedOutput()
		if strings.TrimSpace(string(out)) != want {
			r.t.Errorf("%s:\n%s", command, out)
		}
	}
	if left := r.router.Programs("users"); len(left) > 0 {
		r.t.Errorf("programs: %q", left)
	}
}

func (r *rig) ipOption(c syscall.Conn, option int, value []byte) {
	r.t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, option, string(value)) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) write(c *net.UDPConn, group netip.Addr, text string) {
	r.t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(group, 9000)); err != nil {
		r.t.Fatal(err)
	}
}

func eventually(t *testing.T, cond func() bool, what string) {
	t.Helper()
	testnet.Eventually(t, 5*time.Second, cond, what)
}
