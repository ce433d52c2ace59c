package marking

import (
	"errors"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/manycast/manycast/tdpd/internal/kernel"
	"github.com/manycast/manycast/tdpd/internal/rtnl"
)

// watch tells when others have changed, or may have changed, what marks lead by: interfaces, with which the kernel drops routes without a
// word, rules, and routes of our protocol.
type watch struct {
	monitor *rtnl.Monitor
	changed chan struct{} // it closes when there is no more to hear
	ending  atomic.Bool
	err     error             // why it ended; nil: by close
	links   map[int]rtnl.Link // as told last, of their flags IFF_UP and IFF_RUNNING
}

const noticesBuffer = 1 << 20

func newWatch(own uint32) (*watch, error) {
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}
	m, err := rtnl.Listen(groups, noticesBuffer, concerns(own))
	if err != nil {
		return nil, err
	}
	w := &watch{monitor: m, changed: make(chan struct{}, 1), links: map[int]rtnl.Link{}}
	go w.listen()
	return w, nil
}

// concerns passes over what the socket own has changed, and routes of other protocols.
func concerns(own uint32) []bpf.Instruction {
	const accept, drop = 1 << 18, 0
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: rtnl.OffsetPort, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: rtnl.Swap32(own), SkipTrue: 6},
		bpf.LoadAbsolute{Off: rtnl.OffsetType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: rtnl.Swap16(unix.RTM_NEWROUTE), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: rtnl.Swap16(unix.RTM_DELROUTE), SkipTrue: 2},
		bpf.LoadAbsolute{Off: rtnl.OffsetProtocol, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: kernel.Protocol, SkipTrue: 1},
		bpf.RetConstant{Val: accept},
		bpf.RetConstant{Val: drop},
	}
}

func (w *watch) listen() {
	defer close(w.changed)
	for {
		tells := false
		err := w.monitor.Receive(func(m rtnl.Message) { tells = w.tells(m) || tells })
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			if !w.ending.Load() {
				w.err = err
			}
			return
		}
		if !tells && err == nil {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// tells says whether a notification is of a change: of interfaces much is told that is none.
func (w *watch) tells(m rtnl.Message) bool {
	if m.Type != unix.RTM_NEWLINK && m.Type != unix.RTM_DELLINK {
		return true
	}
	link, err := rtnl.ParseLink(m.Data)
	if err != nil {
		return false
	}
	if m.Type == unix.RTM_DELLINK {
		delete(w.links, link.Index)
		return true
	}
	link.Flags &= unix.IFF_UP | unix.IFF_RUNNING
	before := w.links[link.Index]
	w.links[link.Index] = link
	return before != link
}

func (w *watch) close() error {
	w.ending.Store(true)
	return w.monitor.Close()
}
