package mroute

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Table is what the kernel has in one multicast routing table.
type Table struct {
	VIFs    map[int]int // number to interface index
	Entries []Entry
	Lost    []Entry // entries whose parent is gone; the kernel does not say which number it had
}

// Attributes of <linux/mroute.h>.
const (
	familyIPMR     = 128 // RTNL_FAMILY_IPMR
	ipmraTableID   = 1   // IPMRA_TABLE_ID
	ipmraTableVIF  = 6   // IPMRA_TABLE_VIFS
	vifaIfindex    = 1   // IPMRA_VIFA_IFINDEX
	vifaID         = 2   // IPMRA_VIFA_VIF_ID
	sizeofRtMsg    = 12
	sizeofNexthop  = 8
	rtnhUnresolved = 32 // RTNH_F_UNRESOLVED
)

// Dump reads all multicast routing tables of the network namespace.
func Dump() (map[uint32]Table, error) {
	tables := map[uint32]Table{}
	links, err := dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(familyIPMR))
	if err != nil {
		return nil, fmt.Errorf("read the multicast VIFs: %w", err)
	}
	for _, m := range links {
		if id, vifs, ok := parseTable(m); ok {
			tables[id] = Table{VIFs: vifs}
		}
	}
	request := nl.NewRtMsg()
	request.Family = familyIPMR
	request.Type, request.Protocol, request.Scope = 0, 0, 0
	routes, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, request)
	if err != nil {
		return nil, fmt.Errorf("read the multicast routes: %w", err)
	}
	for _, m := range routes {
		addRoute(tables, m)
	}
	return tables, nil
}

func dump(get, want uint16, request nl.NetlinkRequestData) ([][]byte, error) {
	const tries = 5
	var err error
	for range tries {
		req := nl.NewNetlinkRequest(int(get), unix.NLM_F_DUMP)
		req.AddData(request)
		var res [][]byte
		if res, err = req.Execute(unix.NETLINK_ROUTE, want); !errors.Is(err, nl.ErrDumpInterrupted) {
			return res, err
		}
	}
	return nil, err
}

// parseTable decodes one RTM_NEWLINK message, which stands for a table.
func parseTable(m []byte) (id uint32, vifs map[int]int, ok bool) {
	if len(m) < unix.SizeofIfInfomsg {
		return 0, nil, false
	}
	vifs = map[int]int{}
	for _, spec := range attributes(m[unix.SizeofIfInfomsg:]) {
		if spec.kind != unix.IFLA_AF_SPEC {
			continue
		}
		for _, a := range attributes(spec.value) {
			switch a.kind {
			case ipmraTableID:
				id, ok = a.uint32(), true
			case ipmraTableVIF:
				for _, v := range attributes(a.value) {
					number, ifindex := -1, 0
					for _, f := range attributes(v.value) {
						switch f.kind {
						case vifaIfindex:
							ifindex = int(f.uint32())
						case vifaID:
							number = int(f.uint32())
						}
					}
					if number >= 0 && number < VIFsMax {
						vifs[number] = ifindex
					}
				}
			}
		}
	}
	return id, vifs, ok
}

// addRoute decodes one RTM_NEWROUTE message into its table.
func addRoute(tables map[uint32]Table, m []byte) {
	if len(m) < sizeofRtMsg {
		return
	}
	id := uint32(m[4]) // rtm_table
	var e Entry
	var parent uint32
	var hops []byte
	for _, a := range attributes(m[sizeofRtMsg:]) {
		switch a.kind {
		case unix.RTA_TABLE:
			id = a.uint32()
		case unix.RTA_SRC:
			if s, ok := netip.AddrFromSlice(a.value); ok && s.Is4() && !s.IsUnspecified() {
				e.Source = s
			}
		case unix.RTA_DST:
			e.Group, _ = netip.AddrFromSlice(a.value)
		case unix.RTA_IIF:
			parent = a.uint32()
		case unix.RTA_MULTIPATH:
			hops = a.value
		}
	}
	t, known := tables[id]
	if flags := binary.NativeEndian.Uint32(m[8:]); !known || flags&rtnhUnresolved != 0 || !e.Group.Is4() || !e.Group.IsMulticast() {
		return
	}
	numbers := map[uint32]int{}
	for n, ifindex := range t.VIFs {
		numbers[uint32(ifindex)] = n
	}
	for len(hops) >= sizeofNexthop {
		if n, ok := numbers[binary.NativeEndian.Uint32(hops[4:])]; ok {
			e.Out |= VIF(n)
		}
		hops = hops[min(len(hops), max(sizeofNexthop, int(binary.NativeEndian.Uint16(hops)))):]
	}
	if n, ok := numbers[parent]; ok {
		e.Parent = n
		t.Entries = append(t.Entries, e)
	} else {
		t.Lost = append(t.Lost, e)
	}
	tables[id] = t
}

type attribute struct {
	kind  uint16
	value []byte
}

func (a attribute) uint32() uint32 {
	if len(a.value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.value)
}

// attributes splits netlink attributes; what is cut short ends the list.
func attributes(b []byte) []attribute {
	var list []attribute
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			break
		}
		list = append(list, attribute{kind: binary.NativeEndian.Uint16(b[2:]) & nl.NLA_TYPE_MASK, value: b[unix.SizeofRtAttr:n]})
		b = b[min(len(b), (n+3)&^3):]
	}
	return list
}
