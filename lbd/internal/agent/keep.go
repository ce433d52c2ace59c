package agent

import (
	"errors"
	"time"
)

// shelving is what goes to the disk. The loop does not wait for it: others would take over from a server whose disk is slow.
type shelving struct {
	waiting map[string]Keep
	busy    bool
	ended   chan shelved
	failing bool
	again   time.Time // when to try again; zero: nothing has failed
}

// shelved is how it went.
type shelved struct {
	unkept map[string]Keep
	err    error
}

func newShelving() shelving {
	return shelving{waiting: map[string]Keep{}, ended: make(chan shelved, 1)}
}

// keep begins to put on disk what waits, unless that is being done.
func (l *Loop) keep() {
	s := &l.shelving
	s.again = time.Time{}
	if s.busy || len(s.waiting) == 0 {
		return
	}
	all := s.waiting
	s.busy, s.waiting = true, map[string]Keep{}
	l.work.Go(func() { s.ended <- l.shelve(all) })
}

func (l *Loop) shelve(all map[string]Keep) (r shelved) {
	r.unkept = map[string]Keep{}
	for name, k := range all {
		if err := errors.Join(l.shelf.Keep(name, k.Allocation), l.shelf.KeepLosses(name, k.Losses)); err != nil {
			r.unkept[name], r.err = k, err
		}
	}
	return r
}

// kept takes how it went. What cannot be written is tried again: an older allocation in its place would serve the wrong users after a
// restart without a bus.
func (l *Loop) kept(r shelved) {
	s := &l.shelving
	s.takeBack(r)
	if r.err != nil {
		if !s.failing {
			l.cfg.Log.Error("allocation is executed, but a restart without a bus would not know it; trying again", "err", r.err)
		}
		s.failing, s.again = true, time.Now().Add(retryAfter)
		return
	}
	if s.failing {
		l.cfg.Log.Info("allocations are kept again")
	}
	s.failing = false
	l.keep()
}

func (s *shelving) takeBack(r shelved) {
	s.busy = false
	for name, k := range r.unkept {
		if _, newer := s.waiting[name]; !newer {
			s.waiting[name] = k
		}
	}
}

// keepRest is the last: nothing else works any more.
func (l *Loop) keepRest() {
	select {
	case r := <-l.shelving.ended:
		l.shelving.takeBack(r)
	default:
	}
	if r := l.shelve(l.shelving.waiting); r.err != nil {
		l.cfg.Log.Error("allocation is not kept: a restart without a bus would not know it", "err", r.err)
	}
}
