package kernel

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/steer"
	"golang.org/x/sys/unix"
)

func TestNetOwnerMode(t *testing.T) {
	for _, accelerator := range []bool{false, true} {
		t.Run(fmt.Sprintf("accelerator %v", accelerator), func(t *testing.T) {
			r := newRig(t)
			l := r.open(rigConfig(ModeOwner, accelerator, "", r.bpffs))
			r.set(l, rigState(quarters(t, 1, 2, 3)))
			r.expect(group, 1, 2, 3, 0)
			c, err := l.Counters()
			if err != nil || c.NoOwner != 8 || c.Owners[2].Packets != 8 || c.Owners[2].Bytes != 8*29 {
				t.Errorf("counters %+v %v", c, err)
			}
			if tables, redirects := c.Tables == 24, c.Accelerated == 24; tables == accelerator || redirects != accelerator {
				t.Errorf("which way: %+v", c)
			}
			r.set(l, rigState(quarters(t, 3, 0, 2, 1)))
			r.expect(group, 3, 0, 2, 1)

			// Nobody owns anybody: known, dropped, counted.
			before, _ := l.Counters()
			r.set(l, State{Interfaces: interfaces("users", "s1", "s2", "s3"), Private: map[netip.Addr]Private{group: {In: []string{"users"}}}})
			r.expect(group, 0, 0, 0, 0)
			after, err := l.Counters()
			if err != nil || after.NoOwner != before.NoOwner+32 || len(after.Owners) != 0 {
				t.Errorf("counters %+v %v", after, err)
			}

			// Public groups go beside it.
			s := rigState(quarters(t, 1, 2, 3))
			s.Public = []Route{{Group: publicGrp, In: []string{"users"}, Out: []string{"s2"}}}
			r.set(l, s)
			r.expect(publicGrp, 2, 2, 2, 2)
			r.expect(group, 1, 2, 3, 0)
			r.quiet()
		})
	}
}

// What the accelerator does not take goes by the tables to the same server.
func TestNetAcceleratorFallsThrough(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeOwner, true, "", r.bpffs))
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	if out, err := r.router.Run("ip", "link", "set", "s2", "mtu", "600"); err != nil {
		t.Fatal(out)
	}
	r.send(group, userAddr(101), strings.Repeat("x", 1000)) // the kernel fragments it
	if a := r.next(); a.server != 2 {
		t.Errorf("came to server %d", a.server)
	}
	if c, err := l.Counters(); err != nil || c.Tables != 1 || c.Accelerated != 0 {
		t.Errorf("counters %+v %v", c, err)
	}
	r.send(group, userAddr(102), strings.Repeat("x", 20000)) // fragments all follow their source
	if a := r.next(); a.server != 3 {
		t.Errorf("came to server %d", a.server)
	}
	if c, err := l.Counters(); err != nil || c.Accelerated < 10 || c.Tables != 1 {
		t.Errorf("counters %+v %v", c, err)
	}
}

func TestNetReversePathFilter(t *testing.T) {
	for _, filter := range []string{"1", "2"} {
		for _, vmark := range []string{"0", "1"} {
			r := newRig(t)
			r.router.Sysctl("net.ipv4.conf.all.rp_filter", filter)
			r.router.Sysctl("net.ipv4.conf.users.src_valid_mark", vmark)
			l := r.open(rigConfig(ModeOwner, false, "", r.bpffs))
			r.set(l, rigState(quarters(t, 1, 2, 3)))
			t.Logf("rp_filter %s src_valid_mark %s", filter, vmark)
			r.expect(group, 1, 2, 3, 0)
		}
	}
}

// An owner may have groups that leave by different interfaces: then its table alone tells them apart.
func TestNetOwnerWithTwoExits(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeOwner, true, "", r.bpffs))
	s := rigState(quarters(t, 1, 1, 1, 1))
	s.Private[group] = Private{Plan: quarters(t, 1, 1, 1, 1), Owners: map[steer.Owner]string{1: "s1"}, In: []string{"users"}}
	second := netip.MustParseAddr("239.1.1.2")
	s.Private[second] = Private{Plan: quarters(t, 1, 1, 1, 1), Owners: map[steer.Owner]string{1: "s3"}, In: []string{"users"}}
	r.set(l, s)
	r.expect(group, 1, 1, 1, 1)
	if c, err := l.Counters(); err != nil || c.Tables != 32 {
		t.Errorf("counters %+v %v", c, err)
	}
	if out, err := r.router.Run("sh", "-c", "ip mroute show table 10001 | wc -l"); err != nil || out != "2\n" {
		t.Errorf("%s %v", out, err)
	}
}

// An ICMP error goes to the server of the user inside it, whoever sent it.
func TestNetICMPErrorFollowsItsUser(t *testing.T) {
	for _, accelerator := range []bool{false, true} {
		r := newRig(t)
		l := r.open(rigConfig(ModeOwner, accelerator, "", r.bpffs))
		r.set(l, rigState(quarters(t, 1, 2, 3)))
		inner := make([]byte, 28) // an IPv4 header and 8 bytes, to user .102
		inner[0] = 0x45
		copy(inner[12:], []byte{192, 0, 2, 80, 10, 0, 1, 102})
		message := append([]byte{3, 4, 0, 0, 0, 0, 5, 0}, inner...)
		var c *net.IPConn
		if err := r.user.Do(func() (err error) {
			c, err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.IPv4(10, 0, 1, 2)})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r.ipOption(c, unix.IP_MULTICAST_TTL, []byte{8})
		if _, err := c.WriteToIP(message, &net.IPAddr{IP: group.AsSlice()}); err != nil {
			t.Fatal(err)
		}
		counted := func() bool {
			counters, err := l.Counters()
			return err == nil && counters.Owners[3].Packets == 1 && counters.Owners[1].Packets+counters.Owners[2].Packets == 0
		}
		eventually(t, counted, "owner 3 has the ICMP error")
	}
}

// Packets whose TTL ends here, with IP options, or from an interface that the group does not come from: never redirected.
func TestNetAcceleratorKeepsTheTablesRules(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeOwner, true, "", r.bpffs))
	s := rigState(quarters(t, 1, 2, 3))
	s.Private[netip.MustParseAddr("239.1.1.3")] = Private{Plan: quarters(t, 1, 1, 1, 1), Owners: map[steer.Owner]string{1: "s1"}, In: []string{"s3"}}
	r.set(l, s)

	c := r.sender(userAddr(100))
	r.ipOption(c, unix.IP_MULTICAST_TTL, []byte{1})
	r.write(c, group, "ends here")
	r.ipOption(c, unix.IP_MULTICAST_TTL, []byte{8})
	r.write(c, netip.MustParseAddr("239.1.1.3"), "from the wrong side")
	r.ipOption(c, unix.IP_OPTIONS, []byte{1, 1, 1, 1}) // no-operation
	r.write(c, group, "options")
	if a := r.next(); a.text != "options" || a.server != 1 {
		t.Errorf("%+v", a)
	}
	r.quiet()
	if c, err := l.Counters(); err != nil || c.Accelerated != 0 || c.Tables != 2 {
		t.Errorf("counters %+v %v", c, err)
	}
}

// An interface that leaves the state loses its program; an owner that comes later under an old number starts counting anew.
func TestNetStateShrinks(t *testing.T) {
	r := newRig(t)
	l := r.open(rigConfig(ModeOwner, true, "", r.bpffs))
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	r.set(l, State{Interfaces: interfaces("users")})
	r.expect(group, 0, 0, 0, 0)
	if out, err := r.router.Run("sh", "-c", "ip mroute show table all | grep -v 'Table: default'; ls "+r.bpffs+" | grep ingress"); out != "" {
		t.Errorf("left: %s %v", out, err) // but refusals of what nobody wants any more
	}
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	if c, err := l.Counters(); err != nil || c.Owners[1].Packets != 8 {
		t.Errorf("counters %+v %v", c, err)
	}
}

// What a forwarder of another configuration left goes when the next one opens.
func TestNetConfigurationChanges(t *testing.T) {
	r := newRig(t)
	r.startHolder()
	config := rigConfig(ModeOwner, true, r.socket, r.bpffs)
	l := r.openOnce(config)
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.closeKeeping(l)

	config.TableBase, config.PublicTable, config.Mark = 20000, 700, 0x5e000000
	config.MarkMask = 0xff0000ff // other sizes of maps, too
	l = r.openOnce(config)
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	if out, err := r.router.Run("sh", "-c", "ip mroute show table all; ip mrule"); err != nil || strings.Contains(out, "10001") || !strings.Contains(out, "20001") {
		t.Errorf("left: %s %v", out, err)
	}
	r.closeKeeping(l)

	config.Mode = ModeSource
	l = r.open(config)
	r.set(l, rigState(quarters(t, 1, 2, 3)))
	r.expect(group, 1, 2, 3, 0)
	if out, err := r.router.Run("ls", r.bpffs); err == nil {
		t.Errorf("left: %s", out)
	}
}
