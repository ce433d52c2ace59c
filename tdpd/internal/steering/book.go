package steering

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Why a binding is not taken.
var (
	ErrMalformed   = errors.New("malformed")
	ErrNotTrusted  = errors.New("not trusted to bind the VIP")
	ErrLoop        = errors.New("has passed here before")
	ErrStale       = errors.New("older than what the voucher said")
	ErrContradicts = errors.New("contradicts another voucher of the same epoch")
	ErrTaken       = errors.New("the VIP is another service's")
	ErrFull        = errors.New("no room for more")
)

// Limits bound what is kept; 0 is the default.
type Limits struct {
	Services int // 1,023
	Vouchers int // of a service: 16
}

// Action is what the Book wants done: Steer or Tell.
type Action interface{ action() }

// Steer says what a service's users are steered by from now on: a binding that holds, or one that withdraws, with the VIPs there were.
type Steer struct {
	Binding
	All bool // all users, neither exceptions nor active ones alone: the binding is not reactive, or a director says it at this router
}

// Tell says what routers upstream are to hear. Who is in its path has heard it. Again: it is what they heard before, with a later end.
type Tell struct {
	Binding
	Again bool
}

func (Steer) action() {}
func (Tell) action()  {}

// Book is what has been vouched for.
type Book struct {
	self     Router
	trust    Trust
	limits   Limits
	services map[string]*service
}

type service struct {
	words map[Router]*word // by voucher
	used  Steer            // the last; the zero one: none
}

// word is a voucher's last one.
type word struct {
	Binding
	from    map[Router]bool // neighbors that told it and are there; the router itself where the director sits here
	expires time.Time       // after that it is held
	told    time.Time       // until when it holds, as it was told on last
}

// gone is when nothing of it holds any more.
func (w *word) gone() time.Time { return w.expires.Add(w.Hold) }

// New returns a Book of a router.
func New(self Router, trust Trust, limits Limits) *Book {
	return &Book{self, trust, Limits{cmp.Or(limits.Services, 1023), cmp.Or(limits.Vouchers, 16)}, map[string]*service{}}
}

// Say takes what a director says at this router: who vouches, by which way and in which sequence is filled in here. Several directors may
// say the same; one that is behind the others, with an epoch before, is not heard. Said again it holds for longer.
func (b *Book) Say(now time.Time, n Binding) ([]Action, error) {
	n.Voucher, n.Path, n.Sequence = b.self, []Router{b.self}, uint64(now.UnixNano())
	var was *word
	if s := b.services[n.Service]; s != nil {
		was = s.words[b.self]
	}
	switch {
	case was == nil && n.Withdraws():
		return nil, nil
	case was == nil:
		return b.Put(now, b.self, n)
	case !n.Withdraws() && n.Allocation.Epoch.Less(was.Allocation.Epoch):
		return nil, fmt.Errorf("binding of %q: %w: epoch %v after %v", n.Service, ErrStale, n.Allocation.Epoch, was.Allocation.Epoch)
	}
	n.Sequence = max(n.Sequence, was.Sequence+1)
	if !n.Withdraws() && n.says(was.Binding) {
		n.Sequence = was.Sequence
	}
	return b.Put(now, b.self, n)
}

// Put takes a binding from a neighbor, or from the router itself, who is always trusted. The error wraps one of the above and says what
// was wrong; what was there stays.
func (b *Book) Put(now time.Time, from Router, n Binding) ([]Action, error) {
	if err := b.admit(now, from, n); err != nil {
		return nil, fmt.Errorf("binding of %q by %v from %v: %w", n.Service, n.Voucher, from, err)
	}
	s := b.services[n.Service]
	if n.Withdraws() {
		delete(s.words, n.Voucher)
		return append(b.settle(now, n.Service), Tell{Binding: b.signed(n)}), nil
	}
	if was := s.words[n.Voucher]; was != nil && was.Sequence == n.Sequence {
		return b.refresh(now, from, was, n.Lifetime, n.Hold), nil
	}
	w := &word{Binding: n, from: map[Router]bool{from: true}, expires: now.Add(n.Lifetime)}
	w.told = w.expires
	s.words[n.Voucher] = w
	return append(b.settle(now, n.Service), Tell{Binding: b.signed(n)}), nil
}

// Refresh takes a neighbor's word that what it told, of that sequence, holds for longer.
func (b *Book) Refresh(now time.Time, from Router, n Binding) ([]Action, error) {
	var w *word
	if s := b.services[n.Service]; s != nil {
		w = s.words[n.Voucher]
	}
	switch {
	case w == nil || w.Sequence != n.Sequence || !w.from[from]:
		return nil, fmt.Errorf("refreshing %q by %v from %v: %w: sequence %d was not told", n.Service, n.Voucher, from, ErrStale, n.Sequence)
	case n.Lifetime < MinLifetime || n.Lifetime > MaxLifetime || n.Hold < 0 || n.Hold > MaxLifetime:
		return nil, fmt.Errorf("refreshing %q by %v from %v: %w: lifetime %v and hold %v", n.Service, n.Voucher, from, ErrMalformed, n.Lifetime, n.Hold)
	}
	return b.refresh(now, from, w, n.Lifetime, n.Hold), nil
}

// refresh lets a word hold for longer, and tells that on when it is worth it: several neighbors may say the same.
func (b *Book) refresh(now time.Time, from Router, w *word, lifetime, hold time.Duration) []Action {
	w.from[from] = true
	if expires := now.Add(lifetime); expires.After(w.expires) {
		w.expires, w.Lifetime, w.Hold = expires, lifetime, hold
	}
	if w.expires.Sub(w.told) < w.Lifetime/4 {
		return nil
	}
	w.told = w.expires
	return []Action{Tell{b.signed(w.left(now)), true}}
}

// admit checks a binding, and makes room for it.
func (b *Book) admit(now time.Time, from Router, n Binding) error {
	if err := n.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if from != b.self && slices.Contains(n.Path, b.self) {
		return ErrLoop
	}
	if n.Path[len(n.Path)-1] != from {
		return fmt.Errorf("%w: its path ends at %v", ErrMalformed, n.Path[len(n.Path)-1])
	}
	s := b.services[n.Service]
	var was *word
	if s != nil {
		was = s.words[n.Voucher]
	}
	vips := n.VIPs
	if n.Withdraws() {
		if was == nil {
			return fmt.Errorf("%w: nothing to withdraw", ErrStale)
		}
		vips = was.VIPs
	}
	for _, v := range vips {
		if v == b.self || from != b.self && !b.trust.allows(from, v) {
			return fmt.Errorf("%w %v", ErrNotTrusted, v)
		}
	}
	if was != nil && (n.Sequence < was.Sequence || n.Sequence == was.Sequence && (n.Withdraws() || !n.says(was.Binding))) {
		return fmt.Errorf("%w: sequence %d after %d", ErrStale, n.Sequence, was.Sequence)
	}
	if n.Withdraws() {
		return nil
	}
	return b.fits(n, s, was)
}

// fits looks at what others said.
func (b *Book) fits(n Binding, s *service, was *word) error {
	for name, other := range b.services {
		if name == n.Service {
			continue
		}
		for _, v := range n.VIPs {
			if slices.Contains(other.used.VIPs, v) {
				return fmt.Errorf("%w: %v is %q's", ErrTaken, v, name)
			}
		}
	}
	if s == nil {
		if len(b.services) >= b.limits.Services {
			return fmt.Errorf("%w: %d services", ErrFull, len(b.services))
		}
		b.services[n.Service] = &service{words: map[Router]*word{}}
		return nil
	}
	if was == nil && len(s.words) >= b.limits.Vouchers {
		return fmt.Errorf("%w: %d vouchers", ErrFull, len(s.words))
	}
	for voucher, w := range s.words {
		if voucher != n.Voucher && w.contradicts(n) {
			return fmt.Errorf("%w: %v said otherwise of %v", ErrContradicts, voucher, n.Allocation.Epoch)
		}
	}
	return nil
}

// Restore takes what a process before has kept, which was there until then: nobody vouches for it now, so it is held from then on, and replaced
// by whatever is said. What is over, or cannot be taken, or is of nobody who is trusted any more is left out.
func (b *Book) Restore(now, then time.Time, kept []Binding) []Action {
	var out []Action
	for _, n := range kept {
		s := b.services[n.Service]
		if n.Withdraws() || n.check() != nil || !b.trusts(n) || b.fits(n, s, nil) != nil {
			continue
		}
		if away := now.Sub(then); away > 0 { // a clock that was set back does not count
			n.Hold -= away
		}
		if n.Hold <= 0 {
			continue
		}
		b.services[n.Service].words[n.Voucher] = &word{Binding: n, from: map[Router]bool{}, expires: now}
		out = append(out, b.settle(now, n.Service)...)
	}
	return out
}

// trusts says whether who told it last may bind all of its VIPs.
func (b *Book) trusts(n Binding) bool {
	from := n.Path[len(n.Path)-1]
	return from == b.self || !slices.ContainsFunc(n.VIPs, func(v netip.Addr) bool { return !b.trust.allows(from, v) })
}

// Only says that at this router directors say nothing of services but these: what they said of others is withdrawn.
func (b *Book) Only(now time.Time, services []string) []Action {
	var out []Action
	for _, name := range b.names() {
		if w := b.services[name].words[b.self]; w == nil || slices.Contains(services, name) {
			continue
		}
		actions, err := b.Say(now, Binding{Service: name})
		if err == nil { // what was said can be withdrawn
			out = append(out, actions...)
		}
	}
	return out
}

// Words are all that was said and may hold, to be kept: what is held already is so for the rest of its time.
func (b *Book) Words(now time.Time) []Binding {
	var out []Binding
	for _, name := range b.names() {
		s := b.services[name]
		for _, v := range slices.SortedFunc(maps.Keys(s.words), netip.Addr.Compare) {
			n := s.words[v].Binding
			if left := s.words[v].gone().Sub(now); left < n.Hold {
				n.Hold = max(left, 0)
			}
			out = append(out, n)
		}
	}
	return out
}

// Holds says whether anything is held: nobody vouches for it now.
func (b *Book) Holds(now time.Time) bool {
	for _, s := range b.services {
		for _, w := range s.words {
			if !now.Before(w.expires) {
				return true
			}
		}
	}
	return false
}

// Lost says that a neighbor is not there any more. What only it told is held from now on.
func (b *Book) Lost(now time.Time, from Router) []Action {
	var out []Action
	for _, name := range b.names() {
		for _, w := range b.services[name].words {
			if !w.from[from] {
				continue
			}
			delete(w.from, from)
			if len(w.from) == 0 && now.Before(w.expires) {
				w.expires = now
			}
		}
		out = append(out, b.settle(now, name)...)
	}
	return out
}

// MayActivate says whether a neighbor may tell of users of a service that they are active: it has told a reactive binding, which may hold.
func (b *Book) MayActivate(from Router, name string) bool {
	s := b.services[name]
	if s == nil {
		return false
	}
	for _, w := range s.words {
		if w.Reactive && w.from[from] {
			return true
		}
	}
	return false
}

// Tick lets time pass: what was held for long enough goes.
func (b *Book) Tick(now time.Time) []Action {
	var out []Action
	for _, name := range b.names() {
		out = append(out, b.settle(now, name)...)
	}
	return out
}

// Next is when Tick has something to do; zero: never.
func (b *Book) Next() time.Time {
	var next time.Time
	for _, s := range b.services {
		for _, w := range s.words {
			if t := w.gone(); next.IsZero() || t.Before(next) {
				next = t
			}
		}
	}
	return next
}

// Held are the bindings that routers upstream are to hear when they come, as they would hold now.
func (b *Book) Held(now time.Time) []Binding {
	var out []Binding
	for _, name := range b.names() {
		s := b.services[name]
		for _, v := range slices.SortedFunc(maps.Keys(s.words), netip.Addr.Compare) {
			if w := s.words[v]; now.Before(w.gone()) {
				out = append(out, b.signed(w.left(now)))
			}
		}
	}
	return out
}

// settle forgets what is over, and steers by the highest epoch of the rest.
func (b *Book) settle(now time.Time, name string) []Action {
	s := b.services[name]
	maps.DeleteFunc(s.words, func(_ Router, w *word) bool { return !now.Before(w.gone()) })
	best := s.best()
	if best == nil {
		delete(b.services, name)
		if s.used.Withdraws() {
			return nil
		}
		return []Action{Steer{Binding: Binding{Service: name, VIPs: s.used.VIPs}}}
	}
	all := !best.UsersOnly && (!best.Reactive || s.words[b.self] != nil)
	if best.says(s.used.Binding) && all == s.used.All {
		return nil
	}
	s.used = Steer{best.Binding, all}
	return []Action{s.used}
}

// best is the word of the highest epoch; of several, which say the same but for what comes of the service without an epoch, the newest.
func (s *service) best() *word {
	var best *word
	for _, v := range slices.SortedFunc(maps.Keys(s.words), netip.Addr.Compare) {
		w := s.words[v]
		if best == nil || best.Allocation.Epoch.Less(w.Allocation.Epoch) ||
			w.Allocation.Epoch == best.Allocation.Epoch && w.Sequence > best.Sequence {
			best = w
		}
	}
	return best
}

// left is the binding with the times that are left of it: whoever hears it holds it no longer than this router does.
func (w *word) left(now time.Time) Binding {
	b := w.Binding
	b.Lifetime = max(w.expires.Sub(now), MinLifetime)
	if held := w.gone().Sub(now) - b.Lifetime; held < b.Hold {
		b.Hold = max(held, 0)
	}
	return b
}

// signed is the binding with this router at the end of its path.
func (b *Book) signed(n Binding) Binding {
	if n.Path[len(n.Path)-1] != b.self {
		n.Path = append(slices.Clone(n.Path), b.self)
	}
	return n
}

func (b *Book) names() []string { return slices.Sorted(maps.Keys(b.services)) }
