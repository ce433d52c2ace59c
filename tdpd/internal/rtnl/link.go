package rtnl

import "golang.org/x/sys/unix"

// Link is what a notification tells of an interface.
type Link struct {
	Index int
	Flags uint32 // IFF_...
	Name  string
}

// ParseLink reads the body of RTM_NEWLINK or RTM_DELLINK.
func ParseLink(data []byte) (Link, error) {
	if len(data) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	l := Link{Index: int(int32(native.Uint32(data[4:]))), Flags: native.Uint32(data[8:])}
	err := attributes(data[unix.SizeofIfInfomsg:], func(typ uint16, v []byte) error {
		if typ == unix.IFLA_IFNAME && len(v) > 0 {
			l.Name = string(v[:len(v)-1])
		}
		return nil
	})
	return l, err
}
