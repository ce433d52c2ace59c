package binder

import (
	"maps"
	"slices"
	"time"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// retryAfter is when a router is told again that did not take a word.
const retryAfter = time.Second

// teller is what one router has been told, and when it is told what. It is pure.
type teller struct {
	refresh time.Duration
	said    map[string]*said
}

type said struct {
	word *tdpdv1.UserBinding // the last that was tried
	next time.Time
}

func newTeller(refresh time.Duration) *teller {
	return &teller{refresh: refresh, said: map[string]*said{}}
}

// due is what the router is to be told now, in order of services' names; a nil word: nothing. What is wanted no more is withdrawn, once it
// is known what is wanted.
func (t *teller) due(now time.Time, want map[string]*tdpdv1.UserBinding, known bool) (name string, word *tdpdv1.UserBinding) {
	for _, name := range t.names(want) {
		s, w := t.said[name], want[name]
		switch {
		case w == nil && !known:
		case s == nil:
			return name, w
		case w == nil && s.word.GetAllocation() != nil:
			return name, &tdpdv1.UserBinding{Service: name}
		case w == nil && !now.Before(s.next):
			return name, s.word
		case w != nil && (s.word != w || !now.Before(s.next)):
			return name, w
		}
	}
	return "", nil
}

// next is when something is due if nothing changes; zero: never.
func (t *teller) next(now time.Time, want map[string]*tdpdv1.UserBinding, known bool) time.Time {
	var next time.Time
	for name, s := range t.said {
		if want[name] == nil && !known {
			continue
		}
		if next.IsZero() || s.next.Before(next) {
			next = s.next
		}
	}
	return next
}

// told says how telling it went.
func (t *teller) told(now time.Time, name string, word *tdpdv1.UserBinding, err error) {
	if err == nil && word.GetAllocation() == nil {
		delete(t.said, name)
		return
	}
	wait := t.refresh
	if err != nil {
		wait = retryAfter
	}
	t.said[name] = &said{word, now.Add(wait)}
}

func (t *teller) names(want map[string]*tdpdv1.UserBinding) []string {
	all := map[string]bool{}
	for name := range want {
		all[name] = true
	}
	for name := range t.said {
		all[name] = true
	}
	return slices.Sorted(maps.Keys(all))
}
