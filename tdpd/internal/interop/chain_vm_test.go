package interop

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/testnet"
)

// TestVMChainWithFRR: ours - FRR - ours - the server's host, where tdpd is the egress. Packets to the server cross three links, each
// with the label that the next router has bound; ping and TCP get through, of both families.
func TestVMChainWithFRR(t *testing.T) {
	l := newLine(t, 7, 2, 5, 1)
	dual := func(at int, servers ...netip.Addr) *ours {
		return l.tdpd(at, func(r *role) {
			r.Config.Transport6, r.Config.Servers.Addresses = l.id6(at), servers
			r.Config.Labels.First = 1000 * (at + 1) // so that no two have the same by chance
		})
	}
	servers := l.servers()
	f := l.frr(1, frrConfig{is4: true, is6: true})
	a, c, d := dual(0), dual(2), dual(3, servers...)
	operational(l, a, f)
	operational(l, c, f)
	c.meets(3)
	for _, server := range servers {
		p := netip.PrefixFrom(server, server.BitLen())
		var labels [3]string
		l.eventually(func() bool {
			labels = [3]string{a.remote(1, p), c.local(p), d.local(p)}
			_, next := f.bindings(2, p)
			return labels[0] != "" && labels[1] != "" && labels[2] != "" && next == labels[1] && l.labelled(0, p) == labels[0]
		}, "three labels to ", p)
		for _, label := range labels {
			if label == "3" || label == "imp-null" {
				t.Errorf("%v: labels %v: the server's own is to be a real one", p, labels)
			}
		}
		var captures [3]*testnet.Process
		for i := range captures {
			captures[i] = l.capture(i, "r", "-s", "100", "mpls and greater 100")
		}
		l.reaches(0, server)
		l.transfer(0, 3, server, 1<<20)
		for i, capture := range captures {
			l.crosses(capture, labels[i], server)
		}
	}
}

var labelsSeen = regexp.MustCompile(`MPLS \(label (\d+)`)

// crosses waits until a capture has packets to the address, a megabyte of TCP among them, and checks that all have that label.
func (l *line) crosses(capture *testnet.Process, label string, to netip.Addr) {
	l.t.Helper()
	pings, segments := 0, 0
	l.eventually(func() bool {
		pings, segments = 0, 0
		for text := range strings.SplitSeq(strings.ReplaceAll(capture.Output(), "\n\t", " "), "\n") {
			m := labelsSeen.FindStringSubmatch(text)
			switch {
			case m == nil || !strings.Contains(text, "> "+to.String()):
			case m[1] != label:
				l.t.Fatalf("a packet with label %s, want %s: %s", m[1], label, text)
			case strings.Contains(text, "echo request"):
				pings++
			default:
				segments++
			}
		}
		return pings > 0 && segments > 500
	}, "packets to ", to, " with label ", label)
	l.t.Logf("to %v with label %s: %d pings, %d segments", to, label, pings, segments)
}
