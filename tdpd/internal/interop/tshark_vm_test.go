package interop

import (
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/internal/testnet"
	"github.com/manycast/manycast/tdpd/internal/config"
	"github.com/manycast/manycast/tdpd/internal/wire"
)

// TestVMTshark: two of ours and FRR in a line do all that has messages: they meet, by link and targeted hellos, say addresses, bind and
// withdraw, turn bindings away and ask for them again, and end. Another implementation's decoder finds each type of message in the
// captures of both links, and nothing wrong with any.
func TestVMTshark(t *testing.T) {
	l := newLine(t, 9, 5, 1)
	var files []string
	var captures []*testnet.Process
	for _, iface := range []string{"l", "r"} {
		files = append(files, filepath.Join(t.TempDir(), iface+".pcap"))
		captures = append(captures, l.capture(1, iface, "-U", "-w", files[len(files)-1], "port 646"))
	}
	extra := func(n int) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), 32) }
	const most = 12
	for n := range most { // at the first and the last one: more than the one in the middle takes
		l.run(0, "ip", "addr", "add", extra(n).String(), "dev", "lo")
		l.run(2, "ip", "addr", "add", extra(100+n).String(), "dev", "lo")
	}
	f := l.frr(2, frrConfig{is4: true})
	a := l.tdpd(0, restarts, func(r *role) {
		r.Config.Neighbors = []config.Neighbor{{RouterID: l.id(1), Targeted: l.id(1)}}
	})
	b := l.tdpd(1, restarts, func(r *role) {
		r.Config.Limits.Bindings = most
		r.Config.Session.KeepAlive = 3 * time.Second // they say that they are alive
		r.Config.Hello.AcceptTargeted = []netip.Prefix{l.host4(0)}
	})
	a.meets(1)
	operational(l, b, f)
	known := func(of int) (n int) {
		first := 0
		if of == 2 {
			first = 100
		}
		for i := range most {
			if b.remote(of, extra(first+i)) != "" {
				n++
			}
		}
		return n
	}
	l.eventually(func() bool { return known(0) > 0 && known(2) > 0 }, "bindings")
	time.Sleep(4 * time.Second) // keepalives
	if known(0) == most || known(2) == most {
		t.Fatalf("%d and %d bindings, of %d at most together with others: none is turned away", known(0), known(2), most)
	}
	for n := range most { // room again: those that are left were turned away
		if b.remote(0, extra(n)) != "" {
			l.run(0, "ip", "addr", "del", extra(n).String(), "dev", "lo")
		}
		if b.remote(2, extra(100+n)) != "" {
			l.run(2, "ip", "addr", "del", extra(100+n).String(), "dev", "lo")
		}
	}
	for _, x := range []struct{ at, first int }{{0, 0}, {2, 100}} {
		left := strings.Count(l.run(x.at, "ip", "addr", "show", "dev", "lo"), "198.51.100.")
		l.eventually(func() bool { return known(x.at) == left }, "asked again, the neighbor tells all that it has")
	}
	l.run(1, "ip", "addr", "add", "10.0.7.1/32", "dev", "lo")
	l.eventually(func() bool { return a.remote(1, netip.MustParsePrefix("10.0.7.1/32")) != "" }, "an address more")
	l.run(1, "ip", "addr", "del", "10.0.7.1/32", "dev", "lo")
	l.eventually(func() bool { return a.remote(1, netip.MustParsePrefix("10.0.7.1/32")) == "" }, "an address less")
	a.Signal(unix.SIGTERM)
	_ = a.Wait()
	b.Signal(unix.SIGTERM)
	_ = b.Wait()
	time.Sleep(time.Second)
	for _, c := range captures {
		c.Signal(unix.SIGTERM)
		_ = c.Wait()
	}
	want := []string{"0x0001", "0x0100", "0x0200", "0x0201", "0x0300", "0x0301", "0x0400", "0x0401", "0x0402", "0x0403"}
	for i, file := range files {
		seen := map[string]bool{}
		for _, types := range strings.Fields(tshark(t, "-r", file, "-Y", "ldp.hdr.ldpid.lsr=="+l.id(1).String(), "-T", "fields", "-e", "ldp.msg.type")) {
			for _, typ := range strings.Split(types, ",") {
				seen[typ] = true
			}
		}
		for _, typ := range want {
			if !seen[typ] {
				t.Errorf("link %d: ours sent no message of type %s: %v", i, typ, slices.Sorted(maps.Keys(seen)))
			}
		}
		if bad := tshark(t, "-r", file, "-Y", "(_ws.malformed || _ws.expert.severity == error) && !(tcp.payload contains "+typedWildcard+")", "-V"); bad != "" {
			t.Errorf("link %d: tshark finds fault with\n%s", i, bad)
		}
		const ours = "ldp.hdr.ldpid.lsr==10.255.0.5 && "
		for what, filter := range map[string]string{
			"a request for all there is": ours + "ldp.msg.type==0x0401 && tcp.payload contains " + typedWildcard,
			"End-of-LIB":                 ours + fmt.Sprintf("ldp.msg.tlv.status.data==%d && tcp.payload contains %s", wire.StatusEndOfLIB, typedWildcard),
		} {
			if tshark(t, "-r", file, "-Y", filter) == "" {
				t.Errorf("link %d: not there: %s", i, what)
			}
		}
	}
}

// typedWildcard is the FEC TLV with all prefixes of IPv4 (RFC 5918), an element of which tshark 4.0 knows nothing.
const typedWildcard = "01:00:00:05:05:02:02:00:01"

func tshark(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("tshark", args...).Output()
	if err != nil {
		t.Fatalf("tshark (tools/setup test installs it): %v: %s", err, out)
	}
	return string(out)
}
