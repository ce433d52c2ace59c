package binder

import (
	"maps"
	"slices"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

const (
	// retryAfter is when a router is told again that did not take a word.
	retryAfter = time.Second
	// leaveAfter is when the binding of a service that has moved to another mode is withdrawn: what is to take its users has begun by then.
	leaveAfter = 2 * time.Second
)

// teller is what one router has been told, and when it is told what. It is pure.
type teller struct {
	refresh time.Duration
	said    map[string]*said
	leaving map[string]time.Time // services that have moved: when they are withdrawn
	onlyAt  time.Time            // when it is told which services there are
	isOnly  bool                 // it was told
}

type said struct {
	word *tdpdv1.UserBinding // the last that was tried
	next time.Time
}

func newTeller(refresh time.Duration) *teller {
	return &teller{refresh: refresh, said: map[string]*said{}, leaving: map[string]time.Time{}}
}

// only is which services there are, once that is known and if the router is to be told now: a process before may have said more.
func (t *teller) only(now time.Time, want wanted) (services []string, due bool) {
	if t.isOnly || !want.known || now.Before(t.onlyAt) {
		return nil, false
	}
	return want.names, true
}

func (t *teller) toldOnly(now time.Time, err error) {
	t.isOnly, t.onlyAt = err == nil, now.Add(retryAfter)
}

// due is what the router is to be told now, in order of services' names; a nil word: nothing. What is wanted no more is withdrawn.
func (t *teller) due(now time.Time, want wanted) (name string, word *tdpdv1.UserBinding) {
	t.note(now, want)
	for _, name := range t.names(want) {
		s, w := t.said[name], want.words[name]
		switch {
		case t.stays(now, name, want):
		case s == nil:
			return name, w
		case w == nil && !withdraws(s.word):
			return name, &tdpdv1.UserBinding{Service: name}
		case w == nil && !now.Before(s.next):
			return name, s.word
		case w != nil && (s.word != w || !now.Before(s.next)):
			return name, w
		}
	}
	return "", nil
}

// note notes which services have moved to another mode.
func (t *teller) note(now time.Time, want wanted) {
	for name := range t.said {
		if _, noted := t.leaving[name]; t.leaves(name, want) && !noted {
			t.leaving[name] = now.Add(leaveAfter)
		}
	}
	maps.DeleteFunc(t.leaving, func(name string, _ time.Time) bool { return !t.leaves(name, want) })
}

// leaves says whether all users of a service are bound by what was said, and routers are no more to steer them.
func (t *teller) leaves(name string, want wanted) bool {
	s, w := t.said[name], want.words[name]
	return s != nil && !s.word.GetUsersOnly() && want.moved[name] && (w == nil || w.GetUsersOnly())
}

// stays says whether it is not yet time to change or to withdraw what was said.
func (t *teller) stays(now time.Time, name string, want wanted) bool {
	return want.words[name] == nil && !want.known || now.Before(t.leaving[name])
}

// next is when something is due if nothing changes; zero: never.
func (t *teller) next(now time.Time, want wanted) time.Time {
	var next time.Time
	if !t.isOnly && want.known {
		next = t.onlyAt
	}
	for name, s := range t.said {
		at := s.next
		if want.words[name] == nil && !want.known {
			continue
		}
		if t.stays(now, name, want) {
			at = t.leaving[name]
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// told says how telling it went.
func (t *teller) told(now time.Time, name string, word *tdpdv1.UserBinding, err error) {
	if err == nil && withdraws(word) {
		delete(t.said, name)
		return
	}
	wait := t.refresh
	if err != nil {
		wait = retryAfter
	}
	t.said[name] = &said{word, now.Add(wait)}
}

func withdraws(word *tdpdv1.UserBinding) bool {
	return word.GetAllocation() == nil && word.GetNobody() == nil
}

func (t *teller) names(want wanted) []string {
	all := map[string]bool{}
	for name := range want.words {
		all[name] = true
	}
	for name := range t.said {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}
