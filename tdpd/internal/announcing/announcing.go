// Package announcing decides which VIPs this router announces by BGP, and what their paths say: while, and only while, the service is reached
// through it. How it comes and goes is one ordered step: paths that nobody prefers first, then, when neighbors have other ones, none. It is
// pure: what services, the speaker, the operator and time say goes in, paths that are to be announced come out.
package announcing

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/damping"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// Config is how paths come and go.
type Config struct {
	// Server says that this is a server's host, which announces no VIP, whatever services say: its users would come by no director. Its host routes come
	// and go as VIPs do.
	Server bool
	// Covers are announced while a VIP inside one of them is.
	Covers []netip.Prefix
	Soft   Soft
	// Settle is how long neighbors, and those behind them, have to converge after they were told.
	Settle time.Duration
	// Patience is how long neighbors may take to be told, more than none; then it goes on without them.
	Patience time.Duration
	// Flaps says how long a VIP stays out whose service ceased to be reached: zero times for not at all.
	Flaps Flaps
}

// Soft is what a path says that is to be preferred by nobody who has another one.
type Soft struct {
	Prepend     int     // own AS, so often: 0 to bgp.PrependMost
	MED         *uint32 // nil: none
	Communities []bgp.Community
}

// Flaps are a damper's times.
type Flaps struct{ First, Max, Forget time.Duration }

// Check returns an error for what cannot be.
func (c Config) Check() error {
	if c.Soft.Prepend < 0 || c.Soft.Prepend > bgp.PrependMost {
		return fmt.Errorf("prepend %d: want 0 to %d", c.Soft.Prepend, bgp.PrependMost)
	}
	if c.Settle < 0 || c.Patience <= 0 || c.Flaps.First < 0 || c.Flaps.Max < c.Flaps.First || c.Flaps.First > 0 && c.Flaps.Forget <= 0 {
		return errors.New("times: none is negative, patience is more than none, and the longest time out is no shorter than the first")
	}
	for _, p := range c.Covers {
		if !p.IsValid() || p.Bits() == 0 || p != p.Masked() {
			return fmt.Errorf("covering prefix %v: want one such as 198.51.100.0/24, and no default route", p)
		}
	}
	return nil
}

// Service is what is known here of one.
type Service struct {
	Name  string
	VIPs  []netip.Addr
	Reach Reach
}

// Reach says whether users who come here reach a server.
type Reach uint8

// Reaches.
const (
	Reached   Reach = iota
	NoBinding       // nobody has said whose users are whose
	NoServer        // none is there, by the control channel
	NoTree          // no label of any server that is there, nor a way to one
)

// String is for those who ask why a VIP is not announced.
func (r Reach) String() string {
	switch r {
	case Reached:
		return "reached"
	case NoBinding:
		return "no binding of users"
	case NoServer:
		return "no server is there"
	case NoTree:
		return "no way to a server"
	}
	return fmt.Sprintf("reach %d", uint8(r))
}

// Phase is where this router is between coming and having gone. They follow each other in this order; Return leads back to Entering.
type Phase uint8

// Phases.
const (
	Entering  Phase = iota // soft paths; neighbors are given time to have them
	In                     // paths as they are to be
	Leaving                // soft ones again
	Withdrawn              // no VIPs any more; servers' host routes are kept, for packets on their way
	Out                    // nothing: it may be stopped
)

var phaseNames = [...]string{"entering", "in", "leaving", "withdrawn", "out"}

// String is a word.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// Announcing is the state. Not safe for concurrent use.
type Announcing struct {
	config  Config
	phase   Phase
	drained bool
	speaks  bool
	hosts   []bgp.LabelledPath
	vips    map[netip.Addr]*vip

	counts  Counts
	version uint64 // of what is to be announced: each change is the next one
	told    uint64 // the latest version that all neighbors have
	paths   []bgp.Path
	step    step
}

// vip is what is known of one.
type vip struct {
	reach   Reach
	damper  damping.Damper
	damped  time.Time // until then it is out; zero: it is not
	flaps   int
	present bool // some service has it; else it is remembered for its flaps
}

// step is what a phase waits for.
type step struct {
	version uint64    // that neighbors are to have
	begun   time.Time // of the phase
	told    time.Time // when they had it; zero: they have it not
	forced  bool      // patience was over
}

// New begins to come in. Nothing is announced before a service is reached.
func New(now time.Time, c Config) *Announcing {
	return &Announcing{config: c, vips: map[netip.Addr]*vip{}, step: step{begun: now}}
}

// Paths are VIPs and what covers them, as they are to be announced now, by prefix.
func (a *Announcing) Paths() []bgp.Path { return a.paths }

// Hosts are servers' host routes with labels, as they are to be announced now.
func (a *Announcing) Hosts() []bgp.LabelledPath {
	switch {
	case a.phase == Out || a.config.Server && a.phase == Withdrawn:
		return nil
	case !a.config.Server || a.phase == In:
		return a.hosts
	}
	out := slices.Clone(a.hosts)
	for i, h := range out {
		out[i].Path = a.soft(h.Path)
	}
	return out
}

// Version numbers what is to be announced; it is for Told.
func (a *Announcing) Version() uint64 { return a.version }

// Services says which there are, and whether they are reached; true: what is to be announced has changed.
func (a *Announcing) Services(now time.Time, all []Service) bool {
	best := map[netip.Addr]Reach{} // one service is enough of those that have the VIP
	for _, s := range all {
		for _, addr := range s.VIPs {
			if was, ok := best[addr]; !ok || s.Reach < was {
				best[addr] = s.Reach
			}
		}
	}
	for addr := range best {
		if a.vips[addr] == nil {
			f := a.config.Flaps
			a.vips[addr] = &vip{reach: NoBinding, damper: damping.Damper{First: f.First, Max: f.Max, Forget: f.Forget}}
		}
	}
	for addr, v := range a.vips {
		reach, present := best[addr]
		if !present {
			reach = NoBinding
		}
		if v.reach == Reached && reach != Reached {
			if v.flaps++; a.config.Flaps.First > 0 {
				v.damped = v.damper.Fail(now)
				a.counts.Damped++
			}
		}
		v.reach, v.present = reach, present
	}
	maps.DeleteFunc(a.vips, func(_ netip.Addr, v *vip) bool { return !v.present && v.damper.Count(now) == 0 })
	return a.settle(now)
}

// SetHosts says which servers' host routes there are to be; true: what is to be announced has changed.
func (a *Announcing) SetHosts(now time.Time, hosts []bgp.LabelledPath) bool {
	if slices.EqualFunc(a.hosts, hosts, sameHost) {
		return false
	}
	began := len(a.hosts) == 0
	a.hosts = hosts
	a.version++
	a.waitAnew(now, a.config.Server && began)
	return true
}

// Drain is the operator's word that this router is to go; true: what is to be announced has changed. Said again it changes nothing.
func (a *Announcing) Drain(now time.Time) bool {
	if a.drained {
		return false
	}
	a.drained = true
	return a.turn(now, Leaving)
}

// Return takes it back, however far it has gone.
func (a *Announcing) Return(now time.Time) bool {
	if !a.drained {
		return false
	}
	a.drained = false
	return a.turn(now, Entering)
}

// Resume says that VIPs have been announced all the time, as they are to be, by who was here before: they do not come in anew. True: what is to be announced has
// changed.
func (a *Announcing) Resume(now time.Time) bool {
	if a.phase != Entering {
		return false
	}
	return a.turn(now, In)
}

func (a *Announcing) turn(now time.Time, p Phase) bool {
	before := a.version
	a.enter(now, p)
	a.settle(now)
	return a.version != before
}

// Speaks says whether there is a speaker with sessions. While there is none nobody hears what is announced, and what neighbors keep of it is theirs to
// say (RFC 4724).
func (a *Announcing) Speaks(is bool) { a.speaks = is }

// Told says that all neighbors have been told a version; true: what is to be announced has changed.
func (a *Announcing) Told(now time.Time, version uint64) bool {
	a.told = max(a.told, version)
	if a.step.told.IsZero() && a.told >= a.step.version {
		a.step.told = now
	}
	return a.settle(now)
}

// Tick lets time pass; true: what is to be announced has changed.
func (a *Announcing) Tick(now time.Time) bool { return a.settle(now) }

// Next is when Tick has something to do; zero: never.
func (a *Announcing) Next(now time.Time) time.Time {
	next := time.Time{}
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if a.waits() {
		sooner(a.due())
	}
	for _, v := range a.vips {
		sooner(v.damped)
	}
	return next
}
