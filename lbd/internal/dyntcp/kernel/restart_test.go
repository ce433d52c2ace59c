package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
)

// helperEnv names the side that the test binary runs instead of tests: a process to be killed.
const helperEnv = "MANYCAST_TEST_DYNTCP"

func TestMain(m *testing.M) {
	if side := os.Getenv(helperEnv); side != "" {
		if err := runSide(side, os.Getenv(helperEnv+"_BPFFS")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		select {}
	}
	os.Exit(m.Run())
}

func runSide(side, bpffs string) error {
	c := Config{Interfaces: []string{"eth0"}, Bpffs: bpffs}
	e := families["IPv4"]
	if side == "client" {
		client, err := OpenClient(c)
		if err != nil {
			return err
		}
		return client.Set([]ClientService{{VIP: e.vip, Published: published}})
	}
	server, err := OpenServer(c)
	if err != nil {
		return err
	}
	return server.Set([]ServerService{{VIP: e.vip, Destination: e.s1}})
}

func (p *path) start(node *testnet.Node, side string) *testnet.Process {
	p.t.Helper()
	run := node.Start("env", helperEnv+"="+side, helperEnv+"_BPFFS="+filepath.Join(p.bpffs, side), os.Args[0])
	testnet.Eventually(p.t, 20*time.Second, func() bool { return strings.Contains(run.Output(), "ready") }, side, " is ready")
	return run
}

// Both sides are killed: connections go on, and new ones are made. The next processes know all of them, and their clean stop leaves nothing.
func TestNetKillAndTakeOver(t *testing.T) {
	p := newPath(t)
	e := families["IPv4"]
	sides := []*testnet.Process{p.start(p.user, "client"), p.start(p.s1, "server")}
	l := p.listen(p.s1, e.vip.String())
	before := p.connect(e.vip, l)
	p.echo(before)
	for _, s := range sides {
		s.Signal(unix.SIGKILL)
		s.Wait()
	}
	p.echo(before)
	between := p.connect(e.vip, l)
	p.echo(between)

	var client Client
	var server Server
	p.in(p.user, func() (err error) {
		client, err = OpenClient(p.config("client"))
		return err
	})
	p.in(p.s1, func() (err error) {
		server, err = OpenServer(p.config("server"))
		return err
	})
	after := p.connect(e.vip, l) // services are still those that were set
	for what, c := range map[string]pair{"before": before, "between": between, "after": after} {
		p.echo(c)
		is, h := connectionOf(t, client, c.flow()), p.held(server, c)
		if is.Destination != e.s1 || h.Cookie != is.Cookie || !h.Heard {
			t.Errorf("the connection made %s: the user's host has %+v, the server %+v", what, is, h)
		}
	}
	if n := clientCounters(t, client); n.Agreed != 3 {
		t.Errorf("counted %+v", n)
	}
	for _, err := range []error{p.user.Do(func() error { return client.Close(false) }), p.s1.Do(func() error { return server.Close(false) })} {
		if err != nil {
			t.Error(err)
		}
	}
	for side, node := range map[string]*testnet.Node{"client": p.user, "server": p.s1} {
		if _, err := os.Stat(filepath.Join(p.bpffs, side)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: pins are left: %v", side, err)
		}
		if n := p.attached(node, "eth0"); n != 0 {
			t.Errorf("%s: %d programs are left", side, n)
		}
	}
	wire := p.tap(p.router, "users")
	isPlain(t, p, nil, p.connect(e.vip, l), e.vip, wire)
}

// What is known of a connection is found by its flow, without its descriptor, by the next process as well.
func TestNetConnectionIsFound(t *testing.T) {
	for name, e := range families {
		t.Run(name, func(t *testing.T) {
			p := newPath(t)
			p.client()
			server := p.server(p.s1)
			c := p.connect(e.vip, p.listen(p.s1, e.vip.String()))
			want := p.held(server, c)
			want.Sequence, want.Destination, want.Heard = 5, e.also, false
			p.withSocket(c.server, func(fd int) error { return server.Adopt(fd, want) })
			is := func(what string) {
				t.Helper()
				p.in(p.s1, func() error {
					if h, err := server.Find(c.flow()); err != nil || h != want {
						t.Errorf("%s: %+v, %v, want %+v", what, h, err, want)
					}
					for _, user := range []netip.AddrPort{netip.AddrPortFrom(e.user.Addr(), 1), e.s2} { // the VIP's listener is there for all
						if h, err := server.Find(Flow{User: user, VIP: e.vip}); !errors.Is(err, ErrGone) {
							t.Errorf("%s: %s has %+v, %v", what, user, h, err)
						}
					}
					return nil
				})
			}
			is("at first")
			if err := server.Close(true); err != nil {
				t.Fatal(err)
			}
			server = p.server(p.s1)
			is("to the next process")
		})
	}
}

// attached counts the programs of an interface.
func (p *path) attached(node *testnet.Node, ifname string) (n int) {
	p.t.Helper()
	err := node.Do(func() error {
		i, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			is, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
			if err != nil {
				return err
			}
			n += len(is.Programs)
		}
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// Interfaces may change from one process to the next: programs are taken off those that are not named any more.
func TestNetInterfacesChange(t *testing.T) {
	p := newPath(t)
	p.net.Link(p.user, "eth1", "10.4.0.1/24", p.router, "users1", "10.4.0.2/24")
	config := p.config("client")
	for _, interfaces := range [][]string{{"eth0", "eth1"}, {"eth1"}, {"eth0"}} {
		config.Interfaces = interfaces
		p.in(p.user, func() error {
			c, err := OpenClient(config)
			if err != nil {
				return err
			}
			return c.Close(true)
		})
		for _, name := range []string{"eth0", "eth1"} {
			want := 0
			if slices.Contains(interfaces, name) {
				want = 2
			}
			if n := p.attached(p.user, name); n != want {
				t.Errorf("of %v: %d programs at %s, want %d", interfaces, n, name, want)
			}
		}
	}
	config.Interfaces = []string{"lo"}
	err := p.user.Do(func() error {
		_, err := OpenClient(config)
		return err
	})
	says(t, err, "Ethernet header")
	p.in(p.user, func() error {
		config.Interfaces = nil
		c, err := OpenClient(config)
		if err != nil {
			return err
		}
		return c.Close(false)
	})
}
