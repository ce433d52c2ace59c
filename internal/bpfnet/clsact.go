package bpfnet

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Priorities of filters; the lower one runs first.
const (
	priorityFirst  = 10
	priorityOthers = 20
)

// filter is a program on a clsact hook. It stays without a process; the pin holds a map that says where it is.
type filter struct {
	at     place
	pinned bool
}

// place is where a filter is.
type place struct {
	Ifindex, Parent, Handle, Priority uint32
	Name                              [48]byte
}

func (f filter) close() error {
	if f.pinned {
		return nil
	}
	return f.at.remove()
}

func (f filter) detach() error { return f.at.remove() }

func attachClsact(prog *ebpf.Program, ifindex int, dir Direction, o Options) (*Attachment, error) {
	if o.Name == "" || len(o.Name) >= len(place{}.Name) {
		return nil, fmt.Errorf("clsact: the attachment needs a name of less than %d bytes, not %q", len(place{}.Name), o.Name)
	}
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil {
		return nil, err
	}
	unlock, _ := lockQdisc(ifindex)
	defer unlock()
	if err := netlink.QdiscAdd(qdisc(ifindex)); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("clsact: %w", err)
	}
	at := place{Ifindex: uint32(ifindex), Parent: netlink.HANDLE_MIN_INGRESS, Priority: priorityOthers}
	copy(at.Name[:], o.Name)
	if dir == Egress {
		at.Parent = netlink.HANDLE_MIN_EGRESS
	}
	if o.First {
		at.Priority = priorityFirst
	}
	filters, err := netlink.FilterList(l, at.Parent)
	if err != nil {
		return nil, fmt.Errorf("clsact: list filters: %w", err)
	}
	var former []place
	if at.Handle, former = handleOf(filters, at, o.Name); at.Handle == 0 {
		return nil, errors.New("clsact: no free filter handle")
	}
	f := at.filter()
	f.Fd, f.Name, f.DirectAction = prog.FD(), o.Name, true
	if err := netlink.FilterReplace(f); err != nil {
		return nil, fmt.Errorf("clsact: %w", err)
	}
	for _, p := range former {
		if err := netlink.FilterDel(p.filter()); err != nil && !isGone(err) {
			return nil, fmt.Errorf("clsact: remove the former filter: %w", err)
		}
	}
	unlock()
	if o.Pin != "" {
		if err := at.pin(o.Pin); err != nil {
			return nil, errors.Join(err, at.remove())
		}
	}
	return &Attachment{o.Pin, filter{at, o.Pin != ""}}, nil
}

// handleOf returns the handle of the filter of that name at the place's priority, so that it is replaced, or a free one. The
// filters of that name at other priorities are former ones.
func handleOf(filters []netlink.Filter, at place, name string) (handle uint32, former []place) {
	taken := map[uint32]bool{}
	for _, f := range filters {
		a := f.Attrs()
		b, ok := f.(*netlink.BpfFilter)
		switch {
		case ok && b.Name == name && uint32(a.Priority) == at.Priority:
			handle = a.Handle
		case ok && b.Name == name:
			p := at
			p.Priority, p.Handle = uint32(a.Priority), a.Handle
			former = append(former, p)
		case uint32(a.Priority) == at.Priority:
			taken[a.Handle] = true
		}
	}
	for h := uint32(1); handle == 0 && h < 1<<16; h++ {
		if !taken[h] {
			handle = h
		}
	}
	return handle, former
}

func (p place) filter() *netlink.BpfFilter {
	return &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: int(p.Ifindex), Parent: p.Parent, Handle: p.Handle, Priority: uint16(p.Priority), Protocol: unix.ETH_P_ALL,
	}, Fd: -1}
}

// remove deletes the filter, and the qdisc with its last filter.
func (p place) remove() error {
	if err := netlink.FilterDel(p.filter()); err != nil && !isGone(err) {
		return fmt.Errorf("clsact: remove filter: %w", err)
	}
	if err := removeEmptyQdisc(int(p.Ifindex)); err != nil && !isGone(err) {
		return fmt.Errorf("clsact: remove qdisc: %w", err)
	}
	return nil
}

// pin writes the place down beside what is pinned there already, then takes its place.
func (p place) pin(path string) error {
	m, err := ebpf.NewMapWithOptions(&ebpf.MapSpec{
		Name: "clsact_filter", Type: ebpf.Array, KeySize: 4, ValueSize: 64, MaxEntries: 1,
	}, ebpf.MapOptions{})
	if err != nil {
		return fmt.Errorf("clsact: %w", err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), p); err != nil {
		return fmt.Errorf("clsact: %w", err)
	}
	if old, ok := pinnedPlace(path); ok && old == p {
		err = remove(path)
	} else {
		err = RemovePin(path)
	}
	if err != nil {
		return err
	}
	return m.Pin(path)
}

func pinnedPlace(pin string) (p place, ok bool) {
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{})
	if err != nil {
		return p, false
	}
	defer m.Close()
	return p, m.ValueSize() == 64 && m.Lookup(uint32(0), &p) == nil
}

// removeNamed removes the filter if it is still the one of that name: the interface's index may be another's by now.
func (p place) removeNamed() error {
	l, err := netlink.LinkByIndex(int(p.Ifindex))
	if err != nil {
		return nil //nolint:nilerr // gone, and its filters with it
	}
	filters, err := netlink.FilterList(l, p.Parent)
	if err != nil {
		return fmt.Errorf("clsact: list filters: %w", err)
	}
	for _, f := range filters {
		a := f.Attrs()
		b, ok := f.(*netlink.BpfFilter)
		var name [48]byte
		if ok && len(b.Name) < len(name) {
			copy(name[:], b.Name)
		}
		if ok && name == p.Name && a.Handle == p.Handle && uint32(a.Priority) == p.Priority {
			return p.remove()
		}
	}
	return nil
}
