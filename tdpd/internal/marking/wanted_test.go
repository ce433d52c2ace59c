package marking

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/manycast/manycast/internal/steer"
	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"github.com/manycast/manycast/tdpd/internal/vips"
)

var (
	vip4 = netip.MustParseAddr("192.0.2.80")
	vip6 = netip.MustParseAddr("2001:db8::80")
	via4 = netip.MustParseAddr("10.0.1.2")
	via6 = netip.MustParseAddr("2001:db8:1::2")
)

var config = Config{Mark: 0x54000000, Mask: 0xff000fff, Table: 77000, Priority: 7700}

func label(via netip.Addr, labels ...uint32) kernel.Hop {
	return kernel.Hop{Labels: labels, Via: via, Interface: 7}
}

// text is what is wanted, as `ip` says it.
func (w wanted) text() string {
	var lines []string
	for r := range w.rules {
		what := map[uint8]string{rtnl.ActTable: fmt.Sprintf("lookup %d", r.Table), rtnl.ActGoto: fmt.Sprintf("goto %d", r.Goto), rtnl.ActNop: "nop"}[r.Action]
		lines = append(lines, fmt.Sprintf("%d rule %d not=%v %#x/%#x %s", r.Family, r.Priority, r.Not, r.Mark, r.Mask, what))
	}
	for t, hops := range w.tables {
		line := fmt.Sprintf("%d table %d", t.family, t.number)
		for _, h := range hops {
			line += fmt.Sprintf(" %d via %v dev %d", h.Labels, h.Via, h.Interface)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestEachTreeHasARuleAndATable(t *testing.T) {
	u := vips.Users{VIPs: map[netip.Addr]*steer.Plan{vip4: nil, vip6: nil}, Trees: map[steer.Owner][]kernel.Hop{
		1: {label(via4, 19), label(via6, 20)},
		2: {label(via4)},                                                   // wants no label
		3: {},                                                              // its server cannot be reached
		4: {{}},                                                            // as the route says
		5: {{Interface: 1}},                                                // this router
		6: {{Labels: []uint32{19}, Via: via4, Tunnel: via4, Interface: 7}}, // in UDP
	}}
	w, left, err := want(config, u)
	const both = `10 rule 7700 not=true 0x54000000/0xff000000 goto 7702
10 rule 7701 not=false 0x54000001/0xff000fff lookup 77001
10 rule 7701 not=false 0x54000003/0xff000fff lookup 77003
10 rule 7702 not=false 0x0/0x0 nop
10 table 77001 [19] via 10.0.1.2 dev 7 [20] via 2001:db8:1::2 dev 7
10 table 77003
`
	const four = `2 rule 7700 not=true 0x54000000/0xff000000 goto 7702
2 rule 7701 not=false 0x54000001/0xff000fff lookup 77001
2 rule 7701 not=false 0x54000002/0xff000fff lookup 77002
2 rule 7701 not=false 0x54000003/0xff000fff lookup 77003
2 rule 7702 not=false 0x0/0x0 nop
2 table 77001 [19] via 10.0.1.2 dev 7 [20] via 2001:db8:1::2 dev 7
2 table 77002 [] via 10.0.1.2 dev 7
2 table 77003`
	if got := w.text(); got != both+four || err != nil || !slices.Equal(left, []steer.Owner{2, 6}) {
		t.Errorf("%v, left %v:\n%s", err, left, got)
	}
	delete(u.VIPs, vip6)
	if w, left, err := want(config, u); w.text() != four || err != nil || !slices.Equal(left, []steer.Owner{6}) {
		t.Errorf("without a VIP of IPv6: %v, left %v:\n%s", err, left, w.text())
	}
	u.Trees = map[steer.Owner][]kernel.Hop{4: {{}}}
	if w, _, _ := want(config, u); w.text() != "" {
		t.Errorf("of no tree:\n%s", w.text())
	}
	u.Trees, u.Refuse = nil, map[netip.Addr]vips.Refusal{vip4: vips.Unreachable}
	const refused = `2 rule 7700 not=true 0x54000000/0xff000000 goto 7702
2 rule 7701 not=false 0x54000000/0xff000fff lookup 77000
2 rule 7702 not=false 0x0/0x0 nop
2 table 77000`
	if w, _, _ := want(config, u); w.text() != refused {
		t.Errorf("of users whom nobody serves:\n%s", w.text())
	}
}

func TestMoreServersThanMarks(t *testing.T) {
	u := vips.Users{VIPs: map[netip.Addr]*steer.Plan{vip4: nil}, Trees: map[steer.Owner][]kernel.Hop{4095: {label(via4, 19)}, 4096: {label(via4, 20)}}}
	if w, _, err := want(config, u); !errors.Is(err, ErrFull) || len(w.tables) != 1 {
		t.Errorf("%v:\n%s", err, w.text())
	}
}
