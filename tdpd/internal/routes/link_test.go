package routes

import (
	"testing"

	"github.com/manycast/manycast/tdpd/internal/rtnl"
	"golang.org/x/sys/unix"
)

// TestLinksAreToldOnce: what changes nothing about a link is not looked at, and routes are read again only after one went down.
func TestLinksAreToldOnce(t *testing.T) {
	link := func(kind uint16, flags byte, name string) rtnl.Message {
		data := make([]byte, unix.SizeofIfInfomsg)
		data[4], data[8] = 7, flags
		data = append(data, byte(5+len(name)), 0, unix.IFLA_IFNAME, 0)
		return rtnl.Message{Type: kind, Data: append(append(data, name...), 0)}
	}
	const up, runs = unix.IFF_UP, unix.IFF_UP | unix.IFF_RUNNING
	links := map[int]rtnl.Link{}
	for _, step := range []struct {
		what string
		m    rtnl.Message
		want notice
	}{
		{"it is there", link(unix.RTM_NEWLINK, runs, "a"), notice{look: true}},
		{"told again", link(unix.RTM_NEWLINK, runs|unix.IFF_BROADCAST, "a"), notice{}},
		{"another name", link(unix.RTM_NEWLINK, runs, "b"), notice{look: true}},
		{"no carrier", link(unix.RTM_NEWLINK, up, "b"), notice{look: true, lost: 7}},
		{"up", link(unix.RTM_NEWLINK, runs, "b"), notice{look: true}},
		{"gone", link(unix.RTM_DELLINK, runs, "b"), notice{look: true, lost: 7}},
		{"made anew", link(unix.RTM_NEWLINK, 0, "b"), notice{look: true, lost: 7}},
		{"what cannot be read", rtnl.Message{Type: unix.RTM_NEWLINK}, notice{look: true, all: true}},
	} {
		got := ofLink(links, step.m)
		if got.look != step.want.look || got.lost != step.want.lost || got.all != step.want.all {
			t.Errorf("%s: %+v, want %+v", step.what, got, step.want)
		}
	}
}
