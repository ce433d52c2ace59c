package dataplane

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/manycast/manycast/internal/testnet"
	"golang.org/x/sys/unix"
)

// helperEnv names the plane that the test binary runs instead of tests: a process to be killed.
const helperEnv = "MANYCAST_TEST_PLANE"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := runPlane(name, os.Getenv(helperEnv+"_BPFFS")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	if what := os.Getenv(clientEnv); what != "" {
		fmt.Println(holdMany(what))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func runPlane(name, bpffs string) error {
	if name == "director" {
		d, err := OpenDirector(DirectorConfig{Interfaces: []string{"users"}, Bpffs: filepath.Join(bpffs, name)})
		if err != nil {
			return err
		}
		return d.Set(directorServices())
	}
	a, err := OpenAgent(AgentConfig{Interface: "eth0", Bpffs: filepath.Join(bpffs, name), PathMTU: lanMTU})
	if err != nil {
		return err
	}
	if name == "s1" {
		return a.Set(agentServices(odd, even))
	}
	return a.Set(agentServices(even, odd))
}

func (l *lan) startPlane(t *testing.T, node *testnet.Node, name string) *testnet.Process {
	t.Helper()
	p := node.Start("env", helperEnv+"="+name, helperEnv+"_BPFFS="+l.bpffs, os.Args[0])
	testnet.Eventually(t, 20*time.Second, func() bool { return strings.Contains(p.Output(), "ready") }, name, " is ready")
	return p
}

// TestNetKillAndTakeOver: director and agents are killed, forwarding goes on without them; the next ones take over. Of a paced
// stream no packet is lost, a connection lives through all of it, and a clean stop of the next ones removes what the killed
// ones had made.
func TestNetKillAndTakeOver(t *testing.T) {
	l := newLAN(t)
	before := l.traces(t)
	planes := []*testnet.Process{
		l.startPlane(t, l.edge, "director"), l.startPlane(t, l.servers["s1"], "s1"), l.startPlane(t, l.servers["s2"], "s2"),
	}
	l.serve(t)
	client := l.client("10.0.0.11")
	client.Transport.(*http.Transport).DisableKeepAlives = false
	connections := 0
	ask := func() {
		t.Helper()
		resp, err := client.Post("http://"+testVIP+"/", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	dial := client.Transport.(*http.Transport).DialContext
	client.Transport.(*http.Transport).DialContext = countDials(dial, &connections)

	ask()
	stream := l.startStream(t, "10.0.0.12")
	stream.waitAnswers(t, 20)
	for _, p := range planes {
		p.Signal(unix.SIGKILL)
		p.Wait()
	}
	ask()
	stream.waitAnswers(t, 20)
	l.open(t)
	l.set(t)
	l.set(t) // nothing to change
	ask()
	stream.waitAnswers(t, 20)
	if lost := stream.stop(); lost != 0 {
		t.Errorf("%d datagrams of the stream lost", lost)
	}
	if connections != 1 {
		t.Errorf("%d connections made for one user, want one that lives", connections)
	}
	client.CloseIdleConnections()

	l.close(t, true) // a planned restart is no different
	l.get(t, "10.0.0.11", "x")
	l.open(t)
	l.close(t, false)
	if after := l.traces(t); after != before {
		t.Errorf("after a clean stop:\n%s\nbefore:\n%s", after, before)
	}
}

// stream is a paced stream of numbered datagrams from a user to VIP:53.
type stream struct {
	conn net.Conn
	done chan struct{}
	end  sync.WaitGroup

	mu       sync.Mutex
	sent     int
	answered map[string]bool
}

func (l *lan) startStream(t *testing.T, user string) *stream {
	t.Helper()
	s := &stream{done: make(chan struct{}), answered: make(map[string]bool)}
	l.in(t, l.users, func() (err error) {
		s.conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(user)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(testVIP+":53")))
		return err
	})
	t.Cleanup(func() { s.conn.Close() })
	s.end.Go(s.send)
	go s.receive()
	return s
}

func (s *stream) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		s.sent++
		n := s.sent
		s.mu.Unlock()
		fmt.Fprintf(s.conn, "%d", n)
	}
}

func (s *stream) receive() {
	b := make([]byte, 100)
	for {
		n, err := s.conn.Read(b)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.answered[string(b[:n])] = true
		s.mu.Unlock()
	}
}

func (s *stream) missing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent - len(s.answered)
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.answered)
}

// waitAnswers waits for n more answers.
func (s *stream) waitAnswers(t *testing.T, n int) {
	t.Helper()
	want := s.count() + n
	testnet.Eventually(t, 5*time.Second, func() bool { return s.count() >= want }, "the stream is answered")
}

// stop ends the stream and returns how many datagrams had no answer within 2 s after.
func (s *stream) stop() int {
	close(s.done)
	s.end.Wait()
	for deadline := time.Now().Add(2 * time.Second); s.missing() > 0 && time.Now().Before(deadline); {
		<-time.After(5 * time.Millisecond)
	}
	return s.missing()
}

// TestNetOtherLayoutTakesOver: a director with another size of its fragment table replaces the maps of the one before and goes on.
func TestNetOtherLayoutTakesOver(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	l.serve(t)
	l.in(t, l.edge, func() error { return l.director.Close(true) })
	var logged strings.Builder
	l.in(t, l.edge, func() (err error) {
		l.director, err = OpenDirector(DirectorConfig{
			Interfaces: []string{"users"}, Bpffs: filepath.Join(l.bpffs, "director"), FragmentsMax: 512,
			Log: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		return err
	})
	l.get(t, "10.0.0.11", "the former director's program goes on until Set")
	l.in(t, l.edge, func() error { return l.director.Set(directorServices()) })
	l.get(t, "10.0.0.11", "the new one's")
	if c, err := l.director.Counters(); err != nil || c.Rewritten == 0 {
		t.Errorf("the new program counted %+v, error %v", c, err)
	}
	if !strings.Contains(logged.String(), "another layout") {
		t.Errorf("nothing said of the replaced maps: %s", logged.String())
	}
	l.close(t, false)
}

// TestNetOtherLayoutStillUndoes: an agent of another version replaces the maps and still knows what to undo in the end.
func TestNetOtherLayoutStillUndoes(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	s1, dir := l.servers["s1"], filepath.Join(l.bpffs, "s1")
	l.in(t, s1, func() error { return l.agents["s1"].Close(true) })
	other := &ebpf.MapSpec{Name: "counters", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	m, err := ebpf.NewMap(other)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	pin := filepath.Join(dir, agentMapCounters)
	if err := errors.Join(os.Remove(pin), m.Pin(pin)); err != nil {
		t.Fatal(err)
	}
	l.in(t, s1, func() (err error) {
		l.agents["s1"], err = OpenAgent(AgentConfig{Interface: "eth0", Bpffs: dir})
		return err
	})
	l.set(t)
	l.close(t, false)
	out, err := s1.Run("sh", "-c", "ip -o addr show dev lo; cat /proc/sys/net/ipv4/conf/eth0/arp_ignore")
	if err != nil || strings.Contains(out, "192.0.2.80") || !strings.HasSuffix(strings.TrimSpace(out), "0") {
		t.Errorf("left behind: %s %v", out, err)
	}
}

// TestNetInterfaceMadeAnew: an interface that is deleted and made again under its name has the program after the next Set.
func TestNetInterfaceMadeAnew(t *testing.T) {
	l := newLAN(t)
	l.open(t)
	l.set(t)
	s1 := l.servers["s1"]
	if out, err := s1.Run("ip", "link", "del", "eth0"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.net.Link(s1, "eth0", "10.0.0.1/24", l.edge, "s1", "")
	if err := l.edge.Port("br0", "s1"); err != nil {
		t.Fatal(err)
	}
	l.set(t)
	l.serve(t)
	if got := l.get(t, "10.0.0.11", "x"); !strings.HasPrefix(got, "s1 ") {
		t.Errorf("answer %q, want s1's", got)
	}
	l.close(t, false)
}

func TestNetOpenNamesWhatIsWrong(t *testing.T) {
	n := testnet.New(t)
	node, bpffs := n.Node("a"), n.BPFFS()
	director := func(c DirectorConfig) error {
		return node.Do(func() error { _, err := OpenDirector(c); return err })
	}
	agent := func(c AgentConfig) error {
		return node.Do(func() error { _, err := OpenAgent(c); return err })
	}
	pins := filepath.Join(bpffs, "a")
	wantError(t, director(DirectorConfig{Interfaces: []string{"eth7"}, Bpffs: pins}), "interface eth7")
	wantError(t, director(DirectorConfig{Interfaces: []string{"lo"}, Bpffs: pins}), "interface lo is of type loopback")
	wantError(t, director(DirectorConfig{Bpffs: pins, FragmentsMax: -1}), "-1 fragmented datagrams")
	wantError(t, director(DirectorConfig{Bpffs: t.TempDir()}), "mount -t bpf")
	wantError(t, agent(AgentConfig{Interface: "eth7", Bpffs: pins}), "interface eth7")
	n.Link(node, "eth0", "", n.Node("b"), "eth0", "")
	wantError(t, agent(AgentConfig{Interface: "eth0", PathMTU: 60, Bpffs: pins}), "path MTU 60")
	wantError(t, agent(AgentConfig{Interface: "eth0", Bpffs: t.TempDir()}), "mount -t bpf")
}

// TestNetClsact: where the kernel has no tcx, the same by clsact, a restart and a clean stop included.
func TestNetClsact(t *testing.T) {
	l := newLAN(t)
	before := l.traces(t)
	open := func() {
		l.open(t)
		l.director.(*director).hooks.options.Clsact = true
		for _, a := range l.agents {
			a.(*agent).hooks.options.Clsact = true
		}
	}
	open()
	l.set(t)
	l.serve(t)
	l.get(t, "10.0.0.11", "x")
	l.close(t, true)
	l.get(t, "10.0.0.11", "the programs are still there")
	open()
	l.set(t)
	if got := l.get(t, "10.0.0.12", "x"); !strings.HasPrefix(got, "s2 ") {
		t.Errorf("answer %q, want s2's", got)
	}
	l.close(t, false)
	if after := l.traces(t); after != before {
		t.Errorf("after a clean stop:\n%s\nbefore:\n%s", after, before)
	}
}
