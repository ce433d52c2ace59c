package bpfnet

import (
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Priorities on the hook; lower ones run first. Names are spread over a band, so that two programs do not meet.
const (
	firstBand = 100
	otherBand = 1000
	bandWidth = 900
)

type clsact struct{ filter *netlink.BpfFilter }

func attachClsact(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*clsact, error) {
	qdisc := clsactQdisc(ifindex)
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("clsact qdisc: %w", err)
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: parent(dir), Handle: 1, Protocol: unix.ETH_P_ALL, Priority: priority(o),
		},
		Fd: prog.FD(), Name: o.Name, DirectAction: true,
	}
	if err := netlink.FilterReplace(filter); err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	return &clsact{filter}, nil
}

func priority(o Options) uint16 {
	h := fnv.New32a()
	h.Write([]byte(o.Name))
	band := uint32(otherBand)
	if o.First {
		band = firstBand
	}
	return uint16(band + h.Sum32()%bandWidth)
}

func parent(dir Direction) uint32 {
	if dir == Egress {
		return netlink.HANDLE_MIN_EGRESS
	}
	return netlink.HANDLE_MIN_INGRESS
}

func clsactQdisc(ifindex int) *netlink.GenericQdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

// close leaves the filter: without a pin of its own, cls_bpf holds the program.
func (c *clsact) close() error { return nil }

// detach removes the filter, and the qdisc with its last filter.
func (c *clsact) detach() error {
	index := c.filter.LinkIndex
	if err := netlink.FilterDel(c.filter); err != nil && !gone(err) {
		return fmt.Errorf("remove filter %s: %w", c.filter.Name, err)
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil //nolint:nilerr // the interface went, and all on it
	}
	for _, dir := range []Direction{Ingress, Egress} {
		left, err := netlink.FilterList(link, parent(dir))
		if err != nil || len(left) > 0 {
			return err
		}
	}
	if err := netlink.QdiscDel(clsactQdisc(index)); err != nil && !gone(err) {
		return fmt.Errorf("remove clsact qdisc: %w", err)
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EINVAL)
}
