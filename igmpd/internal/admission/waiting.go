package admission

import (
	"net/netip"
	"slices"
	"time"
)

// waitingRoom holds joins whose group's key is being asked for, bounded.
type waitingRoom struct {
	max, count int
	groups     map[netip.Addr][]Arrival
}

func newWaitingRoom(size int) *waitingRoom {
	return &waitingRoom{max: size, groups: make(map[netip.Addr][]Arrival)}
}

func (w *waitingRoom) add(a Arrival) bool {
	if w.count >= w.max {
		return false
	}
	w.count++
	w.groups[a.Join.Group] = append(w.groups[a.Join.Group], a)
	return true
}

// take empties a group's room, in the order of arrival.
func (w *waitingRoom) take(group netip.Addr) []Arrival {
	all := w.groups[group]
	delete(w.groups, group)
	w.count -= len(all)
	return all
}

// expired takes out the joins that came in before the given time.
func (w *waitingRoom) expired(before time.Time) []Arrival {
	var out []Arrival
	for group, all := range w.groups {
		keep := slices.IndexFunc(all, func(a Arrival) bool { return !a.At.Before(before) })
		if keep < 0 {
			keep = len(all)
		}
		if keep == 0 {
			continue
		}
		out = append(out, all[:keep]...)
		w.count -= keep
		if w.groups[group] = all[keep:]; keep == len(all) {
			delete(w.groups, group)
		}
	}
	return out
}
