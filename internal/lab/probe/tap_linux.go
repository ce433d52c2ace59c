package probe

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/manycast/manycast/internal/netns"
)

// Tap watches a server's link from the router's side: when the server was heard, and when packets for it left.
type Tap struct {
	group, control netip.Addr
	far            bool // the interface is the far end of the router's
	receiver       *receiver

	mu          sync.Mutex
	heard, sent []time.Time // in order
}

// Watch starts to watch an interface: packets to group that leave by it, packets to the control group that come in.
func Watch(ns *netns.Namespace, ifname string, group, control netip.Addr) (*Tap, error) {
	return watch(&Tap{group: group, control: control}, ns, ifname)
}

// WatchFar watches from the far end of the router's link: what XDP sends is seen there alone.
func WatchFar(ns *netns.Namespace, ifname string, group, control netip.Addr) (*Tap, error) {
	return watch(&Tap{group: group, control: control, far: true}, ns, ifname)
}

func watch(t *Tap, ns *netns.Namespace, ifname string) (*Tap, error) {
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
	leaves = leaves != t.far
	t.mu.Lock()
	defer t.mu.Unlock()
	switch to := netip.AddrFrom4([4]byte(p[16:20])); {
	case leaves && to == t.group:
		t.sent = append(t.sent, at)
	case !leaves && to == t.control:
		t.heard = append(t.heard, at)
	}
}

// Between are the times, in order, at which the server was heard, and at which packets were sent to it.
func (t *Tap) Between(from, to time.Time) (heard, sent []time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return between(t.heard, from, to), between(t.sent, from, to)
}

func between(times []time.Time, from, to time.Time) []time.Time {
	a, _ := slices.BinarySearchFunc(times, from, time.Time.Compare)
	b, _ := slices.BinarySearchFunc(times, to, time.Time.Compare)
	return slices.Clone(times[a:max(a, b)])
}

// Stop ends the watching. What was not seen makes it an error.
func (t *Tap) Stop() error { return t.receiver.stop() }
