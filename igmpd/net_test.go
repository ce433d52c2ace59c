package main

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/testnet"
	igmpdv1 "github.com/manycast/manycast/proto/igmpd/v1"
)

const (
	server1, server2 = "10.3.1.11/24", "10.3.2.11/24"
)

// Two routers in a row, each of which checks for itself; no bus anywhere.
func TestNetSignedJoins(t *testing.T) {
	for _, mode := range []string{"owner", "source"} {
		t.Run(mode, func(t *testing.T) { signedJoins(t, mode) })
	}
}

func signedJoins(t *testing.T, mode string) {
	r := newRig(t)
	r.mode = mode
	r.startBoth()
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 1, oddUsers)))
	r.joined("r2", 2)
	r.joined("r1", 2)
	r.gets(r.atS1, evenUser)
	r.gets(r.atS2, oddUser)
	if r.atS1.odd.Load() != 0 || r.atS2.even.Load() != 0 {
		t.Fatalf("packets of others: %d at s1, %d at s2", r.atS1.odd.Load(), r.atS2.even.Load())
	}

	// The higher epoch takes a user over, in both routers.
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 2, portion.Set{Permit: []portion.Portion{portion.All4()}})))
	r.gets(r.atS2, evenUser)

	// A leave gives back what an older epoch has.
	leave := r.newJoin(server2, 2, portion.Set{})
	leave.Leave = true
	r.send(r.s2, proper, r.sign(leave))
	r.gets(r.atS1, evenUser)
	r.joined("r1", 1)

	// Nobody refreshes: the rest goes by itself.
	testnet.Eventually(t, 10*time.Second, func() bool { return len(r.status("r1").Joins) == 0 && len(r.status("r2").Joins) == 0 }, "joins expire")
}

// Each reason by a real packet, at the router next to the server; none of them reaches the next router.
func TestNetRefusals(t *testing.T) {
	r := newRig(t)
	r.configure("r1", "", r1Interfaces, "")
	r.configure("r2", "", r2Interfaces, "[admission]\nskew = \"1s\"\nrate_per_port = 100\nburst_per_port = 200\n")
	r.start(r.r1, "r1")
	r.start(r.r2, "r2")
	stamped := func(age time.Duration, j join.Join) join.Join { j.Time = time.Now().Add(-age); return j }
	good := r.sign(r.newJoin(server1, 5, evenUsers))
	r.send(r.s1, proper, good)
	r.joined("r1", 1)
	admitted := r.status("r1").Admitted

	unsigned, err := join.Unsigned(r.newJoin(server1, 6, oddUsers))
	if err != nil {
		t.Fatal(err)
	}
	forged := r.sign(r.newJoin(server1, 6, oddUsers))
	forged.Raw[len(forged.Raw)-1] ^= 1
	noKey := r.newJoin(server1, 6, oddUsers)
	noKey.KeyID++
	r.send(r.s1, proper, unsigned)
	r.refused("r2", "unsigned", 1)
	r.send(r.s1, proper, good)
	r.refused("r2", "duplicate", 1)
	r.send(r.s1, proper, r.sign(stamped(2*time.Second, r.newJoin(server1, 6, oddUsers))))
	r.refused("r2", "not_timely", 1)
	r.send(r.s2, proper, r.sign(r.newJoin(server1, 6, oddUsers)))
	r.refused("r2", "wrong_link", 1)
	r.send(r.s1, proper, r.sign(noKey))
	r.refused("r2", "no_key", 1)
	r.send(r.s1, proper, forged)
	r.refused("r2", "bad_signature", 1)
	r.send(r.s2, proper, r.sign(r.newJoin(server2, 5, evenUsers)))
	r.refused("r2", "overlap", 1)
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 4, evenUsers)))
	r.refused("r2", "stale_epoch", 1)
	r.send(r.s1, packet{ttl: 2, alert: true}, r.sign(r.newJoin(server1, 6, oddUsers)))
	r.refused("r2", "malformed", 1)
	r.send(r.s1, packet{ttl: 1}, r.sign(r.newJoin(server1, 6, oddUsers)))
	r.refused("r2", "malformed", 2)
	r.send(r.s1, packet{ttl: 1, alert: true, flip: 30}, r.sign(r.newJoin(server1, 6, oddUsers)))
	r.refused("r2", "malformed", 3) // the checksum; the kernel does not look at it
	for range 400 {
		r.send(r.s1, proper, unsigned)
	}
	r.refused("r2", "rate_limited", 1)

	if st := r.status("r1"); st.Admitted != admitted {
		t.Fatalf("%d joins reached r1, want %d", st.Admitted, admitted)
	}
	r.gets(r.atS1, evenUser) // the good one stands
}

// An ordinary host, by ordinary calls, behind two routers.
func TestNetPublicGroup(t *testing.T) {
	r := newRig(t)
	r.startBoth()
	public := netip.MustParseAddr("225.1.2.3")
	var conn *net.UDPConn
	err := r.s1.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		conn, err = net.ListenMulticastUDP("udp4", ifi, &net.UDPAddr{IP: public.AsSlice(), Port: userPort})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	testnet.Eventually(t, 10*time.Second, func() bool {
		r.fromUser(evenUser, public)
		conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, _, err := conn.ReadFrom(buf)
		return err == nil && string(buf[:n]) == "hello"
	}, "the host gets the group")
	conn.Close()
	testnet.Eventually(t, 10*time.Second, func() bool {
		for _, name := range []string{"r1", "r2"} {
			for _, g := range r.status(name).Groups {
				if !g.Private {
					return false
				}
			}
		}
		return true
	}, "both routers see the leave")
}

// igmpd is killed: the holder keeps forwarding, and the next igmpd goes on where the last one was.
func TestNetKillAndRestart(t *testing.T) {
	r := newRig(t)
	holder := filepath.Join(r.dir, "holder.sock")
	r.igmpd(r.r2, "holder", "--socket", holder)
	testnet.Eventually(t, 5*time.Second, func() bool {
		c, err := net.Dial("unixpacket", holder)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, "holder listens")
	r.configure("r1", "", r1Interfaces, "")
	r.configure("r2", holder, r2Interfaces, "")
	r.start(r.r1, "r1")
	first := r.start(r.r2, "r2")
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.joined("r1", 1)
	r.gets(r.atS1, evenUser)
	testnet.Eventually(t, 5*time.Second, func() bool { m, _ := filepath.Glob(filepath.Join(r.dir, "r2", "snapshot.json")); return len(m) == 1 }, "snapshot")

	second := r.igmpd(r.r2, "--config", r.configs["r2"])
	if err := second.Wait(); err == nil || !output(second, "in use by another daemon") {
		t.Fatalf("a second igmpd ended with %v", err)
	}

	owner := r.status("r2").Joins[0].Owner
	first.Signal(unix.SIGKILL)
	first.Wait()
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers))) // nobody hears it
	r.gets(r.atS1, evenUser)
	r.start(r.r2, "r2")
	if st := r.status("r2"); len(st.Joins) != 1 || st.Joins[0].Owner != owner || st.Joins[0].Requester != "10.3.1.11" {
		t.Fatalf("after the restart: %v", st.Joins)
	}
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 2, evenUsers)))
	testnet.Eventually(t, 5*time.Second, func() bool { st := r.status("r2"); return len(st.Joins) == 1 && st.Joins[0].Epoch == "1.2" }, "the next join is taken")
	r.gets(r.atS1, evenUser)
}

// A clean stop leaves nothing in the kernel; with --keep it leaves all.
func TestNetCleanStop(t *testing.T) {
	r := newRig(t)
	r.configure("r2", "", r2Interfaces, "")
	p := r.start(r.r2, "r2")
	rules := func() string {
		out, err := r.r2.Run("ip", "mrule")
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	before := rules()
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.joined("r2", 1)
	testnet.Eventually(t, 5*time.Second, func() bool { return rules() != before }, "rules of the owner")
	p.Signal(unix.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Fatalf("stopped with %v", err)
	}
	if out := rules(); strings.Contains(out, "fwmark") {
		t.Fatalf("left behind:\n%s", out)
	}
	if pins, _ := filepath.Glob(filepath.Join(r.bpffs, "r2", "*")); len(pins) > 0 {
		t.Fatalf("left behind: %v", pins)
	}
}

func TestNetCheckTellsWhatIsWrong(t *testing.T) {
	r := newRig(t)
	r.configure("r1", "", r1Interfaces, "[surprise]\nx = 1\n")
	p := r.igmpd(r.r1, "--check", "--config", r.configs["r1"])
	if err := p.Wait(); err == nil || !output(p, "unknown key surprise") {
		t.Fatalf("unknown key: %v, %s", err, p.Output())
	}
	r.configure("r1", "", r1Interfaces, "")
	if p := r.igmpd(r.r1, "--check", "--config", r.configs["r1"]); p.Wait() != nil {
		t.Fatal(fmt.Errorf("good configuration: %s", p.Output()))
	}
}

// A member's interface is deleted and made anew, the member says what it said before.
func TestNetInterfaceMadeAnew(t *testing.T) {
	r := newRig(t)
	r.startBoth()
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.joined("r1", 1)
	r.gets(r.atS1, evenUser)
	if out, err := r.r2.Run("ip", "link", "del", "s1"); err != nil {
		t.Fatalf("delete the link: %v: %s", err, out)
	}
	port := func() *igmpdv1.Port { return r.status("r2").Ports[0] }
	testnet.Eventually(t, 5*time.Second, func() bool { return !port().Up }, "r2 sees that s1 is gone")
	r.net.Link(r.r2, "s1", "10.3.1.1/24", r.s1, "eth0", "10.3.1.11/24")
	testnet.Eventually(t, 5*time.Second, func() bool { return port().Up }, "r2 sees s1 again")
	r.send(r.s1, proper, r.sign(r.newJoin(server1, 1, evenUsers)))
	r.gets(newSniffer(t, r.s1), evenUser)
}
