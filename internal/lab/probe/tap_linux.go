package probe

import (
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/netns"
)

// Tap watches a server's link from the router's side: when the server was last heard, and when packets for it last left.
type Tap struct {
	group, control netip.Addr
	receiver       *receiver
	heard, sent    []time.Time
}

// Watch starts to watch an interface: packets to group that leave by it, packets to the control group that come in.
func Watch(ns *netns.Namespace, ifname string, group, control netip.Addr) (*Tap, error) {
	t := &Tap{group: group, control: control}
	var err error
	if t.receiver, err = receive(ns, ifname, false, t.take); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tap) take(p []byte, at time.Time, leaves bool) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return
	}
	switch to := netip.AddrFrom4([4]byte(p[16:20])); {
	case leaves && to == t.group:
		t.sent = append(t.sent, at)
	case !leaves && to == t.control:
		t.heard = append(t.heard, at)
	}
}

// Stop ends the watching and returns the times at which the server was heard, and at which packets were sent to it, in order.
func (t *Tap) Stop() (heard, sent []time.Time, err error) {
	err = t.receiver.stop()
	return t.heard, t.sent, err
}
