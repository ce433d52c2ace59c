package kernel

import (
	"errors"

	"github.com/manycast/manycast/igmpd/internal/kernel/mroute"
	"golang.org/x/sys/unix"
)

// upcall answers one question of the kernel with a (S,G) entry, within the cap.
func (l *Linux) upcall(u mroute.Upcall) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.Kind != mroute.NoCache && u.Kind != mroute.WrongInterface {
		return nil
	}
	if l.tables[l.config.publicTable()].has(sg{u.Source, u.Group}) {
		return nil // of the state, or of a process before that no state has judged yet
	}
	e, ok := l.demand.answer(u.Source, u.Group, u.VIF)
	if !ok {
		return nil
	}
	if e.Out == 0 && u.Kind == mroute.NoCache && l.demand.knows(u.Source, u.Group) {
		l.strangers++
	}
	return l.install(e)
}

// install puts an entry into the public table and its account, and others out where there is no room.
func (l *Linux) install(e mroute.Entry) error {
	in, other := l.forwarded, l.refused
	if e.Out == 0 {
		in, other = other, in
	}
	have, old := in.get(key(e))
	if old && have == e {
		return nil
	}
	if in.max == 0 {
		if _, ok := other.get(key(e)); !ok {
			return nil // the kernel drops what is not answered
		}
		return l.uninstall(e)
	}
	if !old && in.full() {
		if err := l.evict(in); err != nil {
			return err
		}
	}
	if err := l.public.Put(e); err != nil {
		return err
	}
	other.remove(key(e))
	in.put(e)
	return nil
}

func (l *Linux) evict(from *sources) error {
	victim, ok := from.victim(func(k sg) uint64 {
		n, _ := l.public.Packets(k.source, k.group) // an entry that is gone has none
		return n
	})
	if !ok {
		return nil
	}
	l.evicted++
	return l.uninstall(victim)
}

func (l *Linux) uninstall(e mroute.Entry) error {
	l.forwarded.remove(key(e))
	l.refused.remove(key(e))
	if err := l.public.Delete(e); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// revise brings the entries made on demand in line with a new state, and takes those of a process before into account.
func (l *Linux) revise(vifs map[int]int) error {
	public := l.tables[l.config.publicTable()]
	for _, e := range public.release(l.demand.static) {
		if e.Out == 0 {
			l.refused.put(e)
		} else {
			l.forwarded.put(e)
		}
	}
	var errs []error
	for _, e := range append(l.forwarded.all(), l.refused.all()...) {
		_, parent := vifs[e.Parent]
		if !parent || public.cut&(e.Out|mroute.VIF(e.Parent)) != 0 {
			errs = append(errs, l.uninstall(e))
			continue
		}
		errs = append(errs, l.reviseEntry(e))
	}
	public.cut = 0
	for _, s := range []*sources{l.forwarded, l.refused} {
		for s.len() > s.max {
			errs = append(errs, l.evict(s))
		}
	}
	return errors.Join(errs...)
}

func (l *Linux) reviseEntry(e mroute.Entry) error {
	if l.demand.static[key(e)] { // the state's own now, and put already
		l.forwarded.remove(key(e))
		l.refused.remove(key(e))
		return nil
	}
	now, ok := l.demand.answer(e.Source, e.Group, e.Parent)
	if !ok || !l.demand.knows(e.Source, e.Group) {
		return l.uninstall(e)
	}
	return l.install(now)
}
