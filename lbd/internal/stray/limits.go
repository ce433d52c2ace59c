package stray

import (
	"cmp"
	"net/netip"
	"time"
)

// Limits are times and sizes. Zero fields take the defaults.
type Limits struct {
	Asks  int // strays that are asked for, a second, default 200
	User  int // of these, of one user (of IPv6: its first 64 bits), default 20
	Flows int // that are asked for, led to a server or known as nobody's, at a time, default 8,192
	Heard int // of one server's strays that are looked for, a second, default 2,000; of all servers' eight times as many
	Held  int // flows that a holder looks after, default 16,384; of more it forgets the first

	GiveUp  time.Duration // from the first word, default 200 ms
	Nobody  time.Duration // how long a flow is known as nobody's, default 5 s
	Again   time.Duration // an entry is asked for again after that, default 30 s
	Look    time.Duration // how often a holder looks, default 1 s
	Words   time.Duration // between two words with strays, default 20 ms
	Answers time.Duration // between two words with holdings, default 40 ms
}

// MaxFrame is the longest packet that is told, with its Ethernet header, in bytes.
const MaxFrame = 2048

// Bounds of one word. A member's words are verified up to 100 times a second: with Limits as they are these are at most 75.
const (
	maxItems   = 64
	maxFrames  = 16 << 10 // bytes of all frames
	maxWaiting = 4096     // items for words to come; one too many is as lost on the way
)

// repeats is when a stray is said again, from its first word.
func repeats() []time.Duration { return []time.Duration{20 * time.Millisecond, 60 * time.Millisecond} }

func (l Limits) withDefaults() Limits {
	l.Asks = cmp.Or(l.Asks, 200)
	l.User = cmp.Or(l.User, 20)
	l.Flows = cmp.Or(l.Flows, 8192)
	l.Heard = cmp.Or(l.Heard, 2000)
	l.Held = cmp.Or(l.Held, 16384)
	l.GiveUp = cmp.Or(l.GiveUp, 200*time.Millisecond)
	l.Nobody = cmp.Or(l.Nobody, 5*time.Second)
	l.Again = cmp.Or(l.Again, 30*time.Second)
	l.Look = cmp.Or(l.Look, time.Second)
	l.Words = cmp.Or(l.Words, 20*time.Millisecond)
	l.Answers = cmp.Or(l.Answers, 40*time.Millisecond)
	return l
}

// second counts what was let through in this second, of all and of each.
type second[K comparable] struct {
	from time.Time
	all  int
	of   map[K]int
}

// take lets one through, unless there were as many of all or of k.
func (s *second[K]) take(now time.Time, k K, all, each int) bool {
	if now.Sub(s.from) >= time.Second || s.of == nil {
		s.from, s.all, s.of = now, 0, map[K]int{}
	}
	if s.all >= all || s.of[k] >= each {
		return false
	}
	s.all++
	s.of[k]++
	return true
}

// userOf is whom Limits.User goes by.
func userOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, _ := a.WithZone("").Prefix(64) // of IPv6 there is one
	return p.Addr()
}

// outbox sends what waits in words of their own pace: the first at once.
type outbox[T any] struct {
	waiting []T
	next    time.Time // no word before
	pace    time.Duration
}

func (o *outbox[T]) put(v T) {
	if len(o.waiting) < maxWaiting {
		o.waiting = append(o.waiting, v)
	}
}

// take returns a word, where one is due. size is of its frame in bytes.
func (o *outbox[T]) take(now time.Time, size func(T) int) []T {
	if len(o.waiting) == 0 || now.Before(o.next) {
		return nil
	}
	n, bytes := 0, 0
	for n < len(o.waiting) && n < maxItems {
		bytes += size(o.waiting[n])
		if n > 0 && bytes > maxFrames {
			break
		}
		n++
	}
	word := o.waiting[:n:n]
	o.waiting, o.next = o.waiting[n:], now.Add(o.pace)
	if len(o.waiting) == 0 {
		o.waiting = nil
	}
	return word
}

// due is when take has one; zero: never.
func (o *outbox[T]) due() time.Time {
	if len(o.waiting) == 0 {
		return time.Time{}
	}
	return o.next
}

// earlier is the earlier of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
