package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/internal/testnet"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

// With this variable set the test binary is igmpd.
const daemonEnv = "MANYCAST_TEST_IGMPD"

func TestMain(m *testing.M) {
	if os.Getenv(daemonEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

const userPort = 7000

var (
	group     = netip.MustParseAddr("239.80.80.80")
	groupKey  = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	groupRec  = record.NewKey(groupKey.Public().(ed25519.PublicKey))
	evenUser  = netip.MustParseAddr("10.1.0.12")
	oddUser   = netip.MustParseAddr("10.1.0.13")
	evenUsers = portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.0/0.0.0.1")}}
	oddUsers  = portion.Set{Permit: []portion.Portion{portion.MustParse("0.0.0.1/0.0.0.1")}}
)

// rig is: users - r1 - r2 - s1, s2, each server on a link of its own. r1 is the root.
type rig struct {
	t             *testing.T
	net           *testnet.Net
	users, r1, r2 *testnet.Node
	s1, s2        *testnet.Node
	dir           string
	mode, bpffs   string
	configs       map[string]string
	daemons       map[string]*testnet.Process
	sockets       map[string]string
	random        io.Reader
	atS1, atS2    *sniffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	n := testnet.New(t)
	r := &rig{
		t: t, net: n, users: n.Node("u"), r1: n.Node("r1"), r2: n.Node("r2"), s1: n.Node("s1"), s2: n.Node("s2"),
		dir: t.TempDir(), mode: "owner", bpffs: n.BPFFS(), configs: map[string]string{}, daemons: map[string]*testnet.Process{}, sockets: map[string]string{}, random: rand.Reader,
	}
	n.Link(r.users, "eth0", "10.1.0.11/16", r.r1, "users", "10.1.0.1/16")
	r.users.Address("eth0", evenUser.String()+"/16")
	r.users.Address("eth0", oddUser.String()+"/16")
	n.Link(r.r1, "down", "10.2.0.1/24", r.r2, "up", "10.2.0.2/24")
	n.Link(r.r2, "s1", "10.3.1.1/24", r.s1, "eth0", "10.3.1.11/24")
	n.Link(r.r2, "s2", "10.3.2.1/24", r.s2, "eth0", "10.3.2.11/24")
	r.users.Route("default", "10.1.0.1")
	r.r1.Route("10.3.0.0/16", "10.2.0.2")
	r.r2.Route("10.1.0.0/16", "10.2.0.1")
	r.s1.Route("default", "10.3.1.1")
	r.s2.Route("default", "10.3.2.1")
	for _, node := range []*testnet.Node{r.r1, r.r2} {
		node.Sysctl("net.ipv4.ip_forward", "1")
		for _, dev := range []string{"all", "default"} {
			node.Sysctl("net.ipv4.conf."+dev+".rp_filter", "2")
		}
	}
	r.pin()
	r.atS1, r.atS2 = newSniffer(t, r.s1), newSniffer(t, r.s2)
	return r
}

// pin writes the group's record as `manycast group export` does; without sessions it is open at any time.
func (r *rig) pin(sessions ...record.Session) {
	r.t.Helper()
	text, err := record.Marshal(record.Record{
		Name: "shop.example.net.", Address: group, Owner: "ops@example.net", Private: true, Keys: []record.Key{groupRec}, Sessions: sessions,
	})
	path := filepath.Join(r.dir, "groups.yaml")
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path) // a router may be reading it
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// configure writes a router's file; nothing in it leads to a bus.
func (r *rig) configure(name, holder, interfaces, extra string) {
	r.t.Helper()
	state := filepath.Join(r.dir, name)
	text := fmt.Sprintf(`
name = %q
state_dir = %q
holder = %q
roots = ["10.1.0.1"]
%s
[log]
level = "debug"
[querier]
query_interval = "2s"
query_response_interval = "1s"
last_member_query_interval = "200ms"
[forwarding]
mode = %q
bpffs = %q
[keys]
pinned = [%q]
%s
`, name, state, holder, interfaces, r.mode, filepath.Join(r.bpffs, name), filepath.Join(r.dir, "groups.yaml"), extra)
	r.configs[name] = filepath.Join(r.dir, name+".toml")
	r.sockets[name] = filepath.Join(state, "status.sock")
	if err := os.WriteFile(r.configs[name], []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

const (
	r1Interfaces = "[[interface]]\nname = \"users\"\nusers = true\n[[interface]]\nname = \"down\"\nmembers = true\nneighbors = [\"10.2.0.2\"]\n"
	r2Interfaces = "[[interface]]\nname = \"up\"\n[[interface]]\nname = \"s1\"\nmembers = true\n[[interface]]\nname = \"s2\"\nmembers = true\n"
)

// start runs igmpd in a node and waits until it answers.
func (r *rig) start(node *testnet.Node, name string) *testnet.Process {
	r.t.Helper()
	os.Remove(r.sockets[name])
	p := r.igmpd(node, "--config", r.configs[name])
	r.daemons[name] = p
	testnet.Eventually(r.t, 10*time.Second, func() bool { return r.status(name) != nil }, name, " answers")
	return p
}

func (r *rig) igmpd(node *testnet.Node, args ...string) *testnet.Process {
	return r.igmpdWith(node, nil, args...)
}

// igmpdWith runs igmpd with variables added to its environment.
func (r *rig) igmpdWith(node *testnet.Node, env []string, args ...string) *testnet.Process {
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	return node.Start(slices.Concat([]string{"env", daemonEnv + "=1"}, env, []string{self}, args)...)
}

func (r *rig) startBoth() {
	r.configure("r1", "", r1Interfaces, "")
	r.configure("r2", "", r2Interfaces, "")
	r.start(r.r1, "r1")
	r.start(r.r2, "r2")
}

// status asks a router; nil: it does not answer.
func (r *rig) status(name string) *igmpdv1.Status {
	c, err := net.Dial("unix", r.sockets[name])
	if err != nil {
		return nil
	}
	defer c.Close()
	data, err := io.ReadAll(c)
	st := &igmpdv1.Status{}
	if err != nil || json.Unmarshal(data, st) != nil {
		return nil
	}
	return st
}

// refused waits until a router has refused n joins for the reason.
func (r *rig) refused(name, reason string, n uint64) {
	r.t.Helper()
	testnet.Eventually(r.t, 5*time.Second, func() bool { st := r.status(name); return st != nil && st.Refused[reason] >= n }, name, " refuses ", reason)
}

// joined waits until a router has as many sets.
func (r *rig) joined(name string, n int) {
	r.t.Helper()
	testnet.Eventually(r.t, 5*time.Second, func() bool { st := r.status(name); return st != nil && len(st.Joins) == n }, name, " has the joins")
}

// newJoin makes a join of the server whose address and prefix are given.
func (r *rig) newJoin(address string, number uint64, users portion.Set) join.Join {
	p := netip.MustParsePrefix(address)
	j := join.Join{
		Group: group, Requester: p.Addr(), Link: p.Masked(), Time: time.Now(), Epoch: epoch.Epoch{Term: 1, Number: number}, Part: 1, Parts: 1,
		Owner: users, KeyID: groupRec.ID,
	}
	if _, err := io.ReadFull(r.random, j.Random[:]); err != nil {
		r.t.Fatal(err)
	}
	return j
}

func (r *rig) sign(j join.Join) join.Signed {
	r.t.Helper()
	s, err := join.Sign(j, groupKey)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// packet is how a report is sent.
type packet struct {
	ttl   int
	alert bool
	flip  int // bit to flip in the byte at this offset; 0: none
}

var proper = packet{ttl: 1, alert: true}

// send sends joins from a server.
func (r *rig) send(node *testnet.Node, how packet, joins ...join.Signed) {
	r.t.Helper()
	payload, err := igmp.Marshal(join.Report(joins...))
	if err != nil {
		r.t.Fatal(err)
	}
	if how.flip > 0 {
		payload[how.flip] ^= 1
	}
	if err := node.Do(func() error { return sendRaw(payload, how) }); err != nil {
		r.t.Fatal(err)
	}
}

func sendRaw(payload []byte, how packet) error {
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, how.ttl); err != nil {
		return err
	}
	if how.alert {
		if err := unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, "\x94\x04\x00\x00"); err != nil {
			return err
		}
	}
	return unix.Sendto(fd, payload, 0, &unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 22}})
}

// fromUser sends one UDP packet of a user to a group.
func (r *rig) fromUser(user, to netip.Addr) {
	r.t.Helper()
	err := r.users.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 16); err != nil {
			return err
		}
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: user.As4()}); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte("hello"), 0, &unix.SockaddrInet4{Addr: to.As4(), Port: userPort})
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// sniffer counts what comes to a server's interface for the group, by the parity of the user's address.
type sniffer struct{ even, odd atomic.Int64 }

func newSniffer(t *testing.T, node *testnet.Node) *sniffer {
	t.Helper()
	s := &sniffer{}
	var file *os.File
	err := node.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "sniffer")
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: ifi.Index}) // ETH_P_IP in network order
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	go s.read(file)
	return s
}

func (s *sniffer) read(file *os.File) {
	want := group.As4()
	buf := make([]byte, 2048)
	for {
		n, err := file.Read(buf)
		if err != nil {
			return
		}
		if n < 28 || buf[9] != unix.IPPROTO_UDP || [4]byte(buf[16:20]) != want {
			continue
		}
		if buf[15]&1 == 0 {
			s.even.Add(1)
		} else {
			s.odd.Add(1)
		}
	}
}

// gets waits until a user's packets arrive at the sniffer.
func (r *rig) gets(s *sniffer, user netip.Addr) {
	r.t.Helper()
	count := &s.even
	if user.As4()[3]&1 == 1 {
		count = &s.odd
	}
	before := count.Load()
	testnet.Eventually(r.t, 5*time.Second, func() bool { r.fromUser(user, group); return count.Load() > before }, "packets of ", user)
}

func output(p *testnet.Process, want string) bool { return strings.Contains(p.Output(), want) }
