// Package admission decides which extended joins a router takes: the flow chart of Fig 6, cheap checks first. It is pure: time
// comes in with each call, keys from memory through Keys, and what it decides is for the caller to carry out and to count.
//
// Two clocks are in play. Stamps of joins are wall-clock times; rates and waiting use the monotonic reading that time.Now
// carries. When the wall clock jumps, Jumped makes a new start: joins stamped before it are not timely, as after a restart, and
// the last stamps of all requesters are kept, so that a clock set back lets no old join in. A requester whose own clock went
// back is refused until it has passed its last stamp again.
package admission

import (
	"crypto/ed25519"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/join"
)

// Config holds the limits of [admission].
type Config struct {
	RequireSignature bool
	Skew             time.Duration // how far a stamp may be from our clock, either way
	ReplayMax        int           // remembered random keys, and remembered requesters
	Rate             float64       // extended joins a second and port
	Burst            float64
	Wait             time.Duration // how long a first join may wait for its key
	WaitMax          int           // joins that may wait
}

// Port is what a router knows of the interface that a join came in by.
type Port struct {
	Name      string
	Prefixes  []netip.Prefix // connected
	Members   bool           // members may join here
	Neighbors []netip.Addr   // routers of ours, which relay joins
}

// Arrival is one extended join as it came in.
type Arrival struct {
	Join   join.Signed
	Port   *Port
	Source netip.Addr // IP source of the report
	At     time.Time  // when it came in
}

// KeyStatus says what memory knows of a key.
type KeyStatus uint8

const (
	KeyUnknown KeyStatus = iota // being asked for: the join waits
	KeyMissing                  // there is none
	KeyKnown
)

// Key is a group's public key with what its record says about now.
type Key struct {
	Status KeyStatus
	Public ed25519.PublicKey
	Open   bool // a session of the group is on
}

// Keys answers from memory, at once; an unknown key makes it ask elsewhere.
type Keys interface {
	Key(now time.Time, group netip.Addr, id uint32) Key
}

// Routes tells the port by which the unicast route to an address leaves; false when there is none.
type Routes func(netip.Addr) (port string, ok bool)

// Outcome is what becomes of a join.
type Outcome uint8

const (
	Refused   Outcome = iota // for the verdict's reason
	Admitted                 // signature, link and time are right
	Public                   // the group is public: its plain record counts
	Waiting                  // for its key; Resume or Expire gives its final verdict
	Redundant                // relayed by one more of our routers, by another way than the one that counts
)

// Verdict is the answer to one join.
type Verdict struct {
	Outcome Outcome
	Reason  Reason
}

func refused(r Reason) Verdict { return Verdict{Refused, r} }

// Result is the final verdict on a join that had waited.
type Result struct {
	Arrival Arrival
	Verdict Verdict
}

// Checker checks joins. It belongs to one goroutine.
type Checker struct {
	cfg     Config
	keys    Keys
	routes  Routes
	started time.Time // joins stamped before are not timely
	buckets map[string]*bucket
	replay  *replayCache
	stamps  *stampTable
	waiting *waitingRoom
}

// New starts a router's checks at the given time.
func New(cfg Config, keys Keys, routes Routes, started time.Time) *Checker {
	return &Checker{
		cfg: cfg, keys: keys, routes: routes, started: started.Round(0),
		buckets: make(map[string]*bucket),
		replay:  newReplayCache(cfg.ReplayMax),
		stamps:  newStampTable(cfg.ReplayMax),
		waiting: newWaitingRoom(cfg.WaitMax),
	}
}

// Allow takes one join out of the port's rate; false means rate limited. It comes before Check, and before what is costly.
func (c *Checker) Allow(now time.Time, port string) bool {
	b := c.buckets[port]
	if b == nil {
		b = &bucket{tokens: c.cfg.Burst, last: now}
		c.buckets[port] = b
	}
	return b.take(now, c.cfg.Rate, c.cfg.Burst)
}

// Jumped tells that the wall clock was set: from here on joins stamped before now are not timely.
func (c *Checker) Jumped(now time.Time) { c.started = now.Round(0) }

// IsPrivate tells whether a group is in the private half of the group space, 232.0.0.0 to 239.255.255.255 (Fig 2).
func IsPrivate(group netip.Addr) bool { return group.Is4() && group.As4()[0]>>3 == 232>>3 }

// Check judges a join that Allow let in.
func (c *Checker) Check(now time.Time, a Arrival) Verdict {
	v := c.check(now, a)
	if v.Outcome == Waiting && !c.waiting.add(a) {
		return refused(NoKey)
	}
	return v
}

// check goes through Fig 6: 605 public or private, 610 duplicate, 615 timely, 620 proper link, 625 key, 630-635 signature.
func (c *Checker) check(now time.Time, a Arrival) Verdict {
	j := &a.Join
	signed := len(j.Signature) > 0
	switch {
	case !IsPrivate(j.Group):
		return Verdict{Outcome: Public}
	case !signed && c.cfg.RequireSignature:
		return refused(Unsigned)
	case c.replay.has(j.Random) && c.relayed(a):
		return Verdict{Outcome: Redundant}
	case c.replay.has(j.Random):
		return refused(Duplicate)
	case !c.timely(a):
		return refused(NotTimely)
	}
	if v := c.properLink(a); v.Outcome != Admitted {
		return v
	}
	if signed {
		if v := c.checkSignature(now, a); v.Outcome != Admitted {
			return v
		}
	}
	if !c.stamps.set(j, a.At.Add(-c.cfg.Skew)) {
		return refused(RateLimited) // no room to remember one more requester: what we cannot remember could be replayed
	}
	c.replay.add(j.Random)
	return Verdict{Outcome: Admitted}
}

// timely judges a stamp by the clock at arrival: waiting for a key makes no join late.
func (c *Checker) timely(a Arrival) bool {
	j := &a.Join
	off := j.Time.Sub(a.At.Round(0))
	return off.Abs() <= c.cfg.Skew && !j.Time.Before(c.started) && c.stamps.after(j)
}

// properLink admits the requester itself on its own link, and a configured neighbour on the way to the requester.
func (c *Checker) properLink(a Arrival) Verdict {
	j := &a.Join
	if a.Source == j.Requester {
		if a.Port.Members && slices.Contains(a.Port.Prefixes, j.Link.Masked()) && j.Link.Contains(j.Requester) {
			return Verdict{Outcome: Admitted}
		}
		return refused(WrongLink)
	}
	port, ok := c.routes(j.Requester)
	switch {
	case !ok || !c.relayed(a):
		return refused(WrongLink)
	case port != a.Port.Name:
		return Verdict{Outcome: Redundant}
	}
	return Verdict{Outcome: Admitted}
}

// relayed holds for what a router of ours passes on. Where there are several ways to a requester, it comes by each.
func (c *Checker) relayed(a Arrival) bool {
	return a.Source != a.Join.Requester && slices.Contains(a.Port.Neighbors, a.Source)
}

func (c *Checker) checkSignature(now time.Time, a Arrival) Verdict {
	j := &a.Join
	key := c.keys.Key(now, j.Group, j.KeyID)
	switch {
	case key.Status == KeyUnknown:
		return Verdict{Outcome: Waiting}
	case key.Status == KeyMissing:
		return refused(NoKey)
	case !key.Open: // 615, too: day and time of the group's sessions come with the key
		return refused(NotTimely)
	case !j.Verify(key.Public):
		return refused(BadSignature)
	}
	return Verdict{Outcome: Admitted}
}

// Resume judges the joins that wait for a group's key, now that the answer is there.
func (c *Checker) Resume(now time.Time, group netip.Addr) []Result {
	var results []Result
	for _, a := range c.waiting.take(group) {
		v := c.check(now, a)
		if v.Outcome == Waiting { // the answer did not hold the key, and one more question is under way
			if c.waiting.add(a) {
				continue
			}
			v = refused(NoKey)
		}
		results = append(results, Result{a, v})
	}
	return results
}

// Expire refuses the joins that have waited too long.
func (c *Checker) Expire(now time.Time) []Result {
	var results []Result
	for _, a := range c.waiting.expired(now.Add(-c.cfg.Wait)) {
		results = append(results, Result{a, refused(NoKey)})
	}
	return results
}

// Waiting tells how many joins wait for a key.
func (c *Checker) Waiting() int { return c.waiting.count }
