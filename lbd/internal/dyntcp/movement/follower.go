package movement

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/manycast/manycast/internal/record"
	"github.com/manycast/manycast/lbd/internal/dyntcp/wire"
)

// FollowerLimits are times and sizes. Zero fields take the defaults.
type FollowerLimits struct {
	Connections int           // at a time, default 65,536
	Past        time.Duration // how long ago a message may have been signed, default 10 min: clocks of users are wrong
	Future      time.Duration // how far ahead, and its sequence, which is of the time, too; default 10 min
	Each        int           // signatures of one connection that are checked, a second and at once, default 10
	All         int           // of all connections, likewise, default 1,000
	Ask         time.Duration // a service's keys are wanted no more often, default 1 s
}

func (l FollowerLimits) withDefaults() FollowerLimits {
	count := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	span := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	count(&l.Connections, 65536)
	count(&l.Each, 10)
	count(&l.All, 1000)
	span(&l.Past, 10*time.Minute)
	span(&l.Future, 10*time.Minute)
	span(&l.Ask, time.Second)
	return l
}

// Service is what is known of a service by who is to be believed.
type Service struct {
	Keys         []record.Key
	Destinations []netip.Prefix // where its servers are: the published set
	Until        time.Time      // it counts before that alone; zero: always
}

// Connection is one of this host's whose server knows the extension.
type Connection struct {
	Flow        Flow
	Service     string
	Tag         uint16
	Cookie      wire.Cookie
	Destination netip.AddrPort // where its packets go
	Sequence    uint64         // of the last move
	Moves       uint64         // that were followed
}

// ErrConnection is what errors of Opened wrap.
var ErrConnection = errors.New("connection cannot be followed")

// Follower follows this host's connections. It is not for use by several goroutines at a time.
type Follower struct {
	limits   FollowerLimits
	flows    map[Flow]*followed
	cookies  map[wire.Cookie]*followed
	services map[string]*known
	all      *rate.Limiter
	actions  []Action
	counters FollowerCounters
}

// FollowerCounters are totals since the start.
type FollowerCounters struct {
	Received uint64 // messages
	Followed uint64 // moves
	Checked  uint64 // signatures
	Refused  map[Reason]uint64
}

type followed struct {
	Connection
	each *rate.Limiter // nil: no signature was ever checked
}

// known is a service and when its keys were wanted last.
type known struct {
	Service
	asked time.Time
}

// NewFollower returns a Follower of no connections.
func NewFollower(limits FollowerLimits) *Follower {
	limits = limits.withDefaults()
	return &Follower{
		limits: limits, flows: map[Flow]*followed{}, cookies: map[wire.Cookie]*followed{}, services: map[string]*known{},
		all:      rate.NewLimiter(rate.Limit(limits.All), limits.All),
		counters: FollowerCounters{Refused: map[Reason]uint64{}},
	}
}

// Set takes what is known of a service from now on. Destinations that are in use stay, though the set has them no more: that was
// signed, or named when the set had them.
func (f *Follower) Set(name string, s Service) {
	k := f.services[name]
	if k == nil {
		k = &known{}
		f.services[name] = k
	}
	k.Service = Service{slices.Clone(s.Keys), slices.Clone(s.Destinations), s.Until}
}

// Opened follows a connection from its handshake on, or again after a restart: c as it was. answered is the destination that the SYN-ACK
// named, which nobody signed: it counts inside of the published set alone; zero: none was named. Errors wrap ErrConnection.
func (f *Follower) Opened(now time.Time, c Connection, answered netip.AddrPort) ([]Action, error) {
	if f.flows[c.Flow] != nil {
		f.Closed(c.Flow) // its end was missed: the kernel has another one there now
	}
	switch {
	case len(f.flows) >= f.limits.Connections:
		return nil, fmt.Errorf("%w: there are %d of them", ErrConnection, len(f.flows))
	case f.cookies[c.Cookie] != nil:
		return nil, fmt.Errorf("%w: another one has its cookie", ErrConnection)
	}
	n := &followed{Connection: c}
	f.flows[c.Flow], f.cookies[c.Cookie] = n, n
	if answered != (netip.AddrPort{}) && answered != n.Destination {
		f.answered(now, n, answered)
	}
	return f.take(), nil
}

func (f *Follower) answered(now time.Time, n *followed, at netip.AddrPort) {
	switch service, ok := f.service(now, n); {
	case !ok:
		f.refuse(n, UnknownKey)
	case !publishes(service, at):
		f.refuse(n, OutsideSet)
	default:
		n.Destination = at
		f.actions = append(f.actions, Rewrite{n.Flow, n.Destination, n.Sequence})
	}
}

// Closed forgets a connection.
func (f *Follower) Closed(flow Flow) {
	if n := f.flows[flow]; n != nil {
		delete(f.flows, flow)
		delete(f.cookies, n.Cookie)
	}
}

// Received takes a message.
func (f *Follower) Received(now time.Time, raw []byte) []Action {
	f.counters.Received++
	s, err := wire.Decode(raw)
	if err != nil {
		f.refuse(nil, Malformed)
		return f.take()
	}
	n, reason := f.find(s.Change)
	if reason == 0 {
		reason = f.judge(now, n, s)
	}
	if reason != 0 {
		f.refuse(n, reason)
		return f.take()
	}
	n.Sequence, n.Destination = s.Sequence, s.New
	n.Moves++
	f.counters.Followed++
	f.actions = append(f.actions, Rewrite{n.Flow, n.Destination, n.Sequence})
	return f.take()
}

// find finds the connection that a message is about.
func (f *Follower) find(c wire.Change) (*followed, Reason) {
	n := f.cookies[c.Cookie]
	switch {
	case n == nil:
		if n = f.flows[flowOf(c)]; n != nil {
			return n, WrongCookie
		}
		return nil, UnknownConnection
	case n.Flow.VIP != c.VIP:
		return n, OtherService
	case n.Flow.User != c.User:
		return n, UnknownConnection
	case n.Tag != c.Tag:
		return n, WrongTag
	}
	return n, 0
}

// judge says what is wrong with a message about a connection; 0: nothing.
func (f *Follower) judge(now time.Time, n *followed, s wire.Signed) Reason {
	switch age := now.Sub(s.Time); {
	case s.Sequence <= n.Sequence:
		return Stale
	case age > f.limits.Past:
		return Expired
	case -age > f.limits.Future || s.Sequence > sequenceAt(now.Add(f.limits.Future)):
		return Future
	}
	service, ok := f.service(now, n)
	switch {
	case !ok:
		return UnknownKey
	case !publishes(service, s.New):
		return OutsideSet
	}
	public, ok := f.key(now, n, service, s.KeyID)
	switch {
	case !ok:
		return UnknownKey
	case !f.affords(now, n):
		return TooMany
	}
	f.counters.Checked++
	if !s.Verify(public) {
		return BadSignature
	}
	return 0
}

// service is what counts of a connection's service now; it is asked for where there is nothing.
func (f *Follower) service(now time.Time, n *followed) (Service, bool) {
	k := f.services[n.Service]
	if k == nil || !k.Until.IsZero() && !now.Before(k.Until) {
		f.ask(now, n.Service)
		return Service{}, false
	}
	return k.Service, true
}

func (f *Follower) ask(now time.Time, name string) {
	k := f.services[name]
	if k == nil {
		k = &known{Service: Service{Until: now}}
		f.services[name] = k
	}
	if k.asked.IsZero() || now.Sub(k.asked) >= f.limits.Ask {
		k.asked = now
		f.actions = append(f.actions, Ask{name})
	}
}

// publishes says whether a destination is one of the service.
func publishes(s Service, at netip.AddrPort) bool {
	return slices.ContainsFunc(s.Destinations, func(p netip.Prefix) bool { return p.Contains(at.Addr()) })
}

func (f *Follower) key(now time.Time, n *followed, s Service, id uint32) (ed25519.PublicKey, bool) {
	for _, k := range s.Keys {
		if k.ID == id {
			return k.Public, true
		}
	}
	f.ask(now, n.Service) // a key may be newer than what is known
	return nil, false
}

// affords says that there is time to check a signature. Who floods one connection takes nothing from the others, but by flooding many.
func (f *Follower) affords(now time.Time, n *followed) bool {
	if n.each == nil {
		n.each = rate.NewLimiter(rate.Limit(f.limits.Each), f.limits.Each)
	}
	return n.each.AllowN(now, 1) && f.all.AllowN(now, 1)
}

func (f *Follower) refuse(n *followed, why Reason) {
	f.counters.Refused[why]++
	r := Refuse{Reason: why}
	if n != nil {
		r.Flow, r.Service = n.Flow, n.Service
	}
	f.actions = append(f.actions, r)
}

// Connections are all that are followed, by user and VIP.
func (f *Follower) Connections() []Connection {
	out := make([]Connection, 0, len(f.flows))
	for _, n := range f.flows {
		out = append(out, n.Connection)
	}
	slices.SortFunc(out, func(a, b Connection) int {
		if c := a.Flow.User.Compare(b.Flow.User); c != 0 {
			return c
		}
		return a.Flow.VIP.Compare(b.Flow.VIP)
	})
	return out
}

// Counters are the totals.
func (f *Follower) Counters() FollowerCounters {
	c := f.counters
	c.Refused = make(map[Reason]uint64, len(f.counters.Refused))
	for why, n := range f.counters.Refused {
		c.Refused[why] = n
	}
	return c
}

func (f *Follower) take() []Action {
	out := f.actions
	f.actions = nil
	return out
}
