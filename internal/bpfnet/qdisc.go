package bpfnet

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

func qdisc(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// removeEmptyQdisc removes the clsact qdisc when no filter is left on it.
func removeEmptyQdisc(ifindex int) error {
	unlock, ok := lockQdisc(ifindex)
	defer unlock()
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil || !ok {
		return nil // the interface went, and all on it; an empty qdisc does no harm
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		left, err := netlink.FilterList(l, parent)
		if err != nil || len(left) > 0 {
			return err
		}
	}
	return netlink.QdiscDel(qdisc(ifindex))
}

// lockQdisc keeps our daemons from adding a filter while one of them removes the qdisc as empty. The lock is an abstract
// socket: it belongs to the network namespace and goes with its process. It is not waited for longer than a second.
func lockQdisc(ifindex int) (unlock func(), ok bool) {
	for range 100 {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("@manycast-clsact-%d", ifindex), Net: "unix"})
		if err == nil {
			return sync.OnceFunc(func() { l.Close() }), true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return func() {}, false
}
