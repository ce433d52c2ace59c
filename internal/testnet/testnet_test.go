package testnet_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/netns"
	"github.com/manycast/manycast/internal/testnet"
)

func TestNetLinkCarriesTraffic(t *testing.T) {
	n := testnet.New(t)
	a, r, b := n.Node("a"), n.Node("r"), n.Node("b")
	n.Link(a, "eth0", "10.0.1.2/24", r, "left", "10.0.1.1/24")
	n.Link(b, "eth0", "10.0.2.2/24", r, "right", "10.0.2.1/24")
	a.Route("default", "10.0.1.1")
	b.Route("10.0.1.0/24", "10.0.2.1")
	r.Sysctl("net.ipv4.ip_forward", "1")

	l, err := b.Listen("tcp", "10.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := a.DialContext(ctx, "tcp", "10.0.2.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, _ := io.ReadAll(c); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	if _, err := net.InterfaceByName("left"); err == nil {
		t.Error("this goroutine's thread did not come back from the namespace")
	}
}

func TestNetOnlySomeCapabilities(t *testing.T) {
	mount := func() error { return unix.Mount("bpf", t.TempDir(), "bpf", 0, "") }
	err := testnet.WithCapabilities(mount, unix.CAP_BPF, unix.CAP_NET_ADMIN)
	if !errors.Is(err, unix.EPERM) {
		t.Errorf("mount without CAP_SYS_ADMIN: %v", err)
	}
	up := func() error {
		m, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(m)
		}
		return err
	}
	node := testnet.New(t).Node("a")
	if err := node.Do(func() error { return testnet.WithCapabilities(up, unix.CAP_NET_ADMIN) }); err != nil {
		t.Errorf("an interface up with CAP_NET_ADMIN: %v", err)
	}
	if err := node.Do(func() error { return testnet.WithCapabilities(up) }); !errors.Is(err, unix.EPERM) {
		t.Errorf("an interface up without: %v", err)
	}
	testnet.New(t).Node("b") // the capabilities are back
}

func TestNetCommandSeesTheHostsMounts(t *testing.T) {
	n := testnet.New(t)
	a := n.Node("a")
	a.Bridge("br0", true)
	path := n.BPFFS()
	if err := os.Mkdir(filepath.Join(path, "pins"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := a.Run("sh", "-c", "ls "+path+"; ip -o link show br0")
	if err != nil || !strings.Contains(out, "pins") || !strings.Contains(out, "br0") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestNetNothingIsLeft(t *testing.T) {
	var name string
	t.Run("network", func(t *testing.T) {
		n := testnet.New(t)
		a := n.Node("a")
		name = a.Name()
		p := a.Start("sleep", "60")
		testnet.Eventually(t, 5*time.Second, func() bool {
			pids, err := a.Processes()
			return err == nil && len(pids) == 1 && pids[0] == p.PID()
		}, "the program runs inside")
	})
	if names, err := netns.List(name); err != nil || len(names) != 0 {
		t.Errorf("left: %v %v", names, err)
	}
}

func TestNetCreateTwiceFails(t *testing.T) {
	a := testnet.New(t).Node("a")
	if _, err := netns.Create(a.Name()); err == nil {
		t.Error("a second namespace of the name was made")
	}
}
