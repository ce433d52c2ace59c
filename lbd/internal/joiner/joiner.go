// Package joiner is the agent's side of the extended join: it keeps a server's memberships known to the routers. Joiner is
// the protocol, without I/O and clock; Loop runs it on a Socket.
package joiner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/igmp"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/portion"
)

// minGap is the least time between two answers for a group, however often a querier asks.
const minGap = 100 * time.Millisecond

// clockStep is how far the wall clock has to go back to be taken for set anew: stamps follow it then. After smaller steps
// they go on growing by a nanosecond, which routers take as long as it is within their skew (5 s by default).
const clockStep = 5 * time.Second

// Config is [join] of lbd/agent.toml and where the joins come from. Zero fields take the file's defaults.
type Config struct {
	Requester  netip.Addr   // this server's address on the link
	Link       netip.Prefix // the interface's connected prefix
	MTU        int          // of the interface, bytes; default 1500
	Refresh    time.Duration
	Resend     time.Duration
	Robustness int          // how often a change is sent
	Unsigned   bool         // send joins without signatures; the Signer is not asked
	Standing   []netip.Addr // groups that are joined for their frames alone, from the first Set on: switches that snoop need to see that
}

// Membership is what a server takes of a group.
type Membership struct {
	Group   netip.Addr
	Epoch   epoch.Epoch
	Owner   portion.Set
	Standby portion.Set
	KeyID   uint32 // the group's key to sign with; 0: whichever the Signer has in force
}

// Signer has the groups' private keys.
type Signer interface {
	// Sign signs j with the key j.KeyID of j.Group, or where that is 0 with the one in force, which the result names.
	// Without such a key the error wraps ErrNoKey.
	Sign(now time.Time, j join.Join) (join.Signed, error)
}

// ErrNoKey says that the group's private key is not here, or not yet.
var ErrNoKey = errors.New("no private key of the group")

// Joiner keeps memberships and says when which reports are due. Not safe for concurrent use.
type Joiner struct {
	cfg    Config
	signer Signer
	random io.Reader
	groups map[netip.Addr]*group
	stamp  int64 // nanoseconds since 1970, of the last join signed
}

// group is one membership on the wire.
type group struct {
	Membership
	parts  []join.Join // unstamped
	owed   int         // transmissions of a change still to make
	at     time.Time   // of the next one
	sent   time.Time   // of the last one; zero: never
	leaves bool        // forgotten when nothing is owed any more
}

// New returns a Joiner without memberships. The random keys of joins and the delays of answers come from random, which
// has to be crypto/rand.Reader outside of tests.
func New(cfg Config, signer Signer, random io.Reader) (*Joiner, error) {
	if !cfg.Requester.Is4() || !cfg.Link.IsValid() || !cfg.Link.Contains(cfg.Requester) {
		return nil, fmt.Errorf("joiner: requester %v is no IPv4 address of link %v", cfg.Requester, cfg.Link)
	}
	if signer == nil && !cfg.Unsigned {
		return nil, errors.New("joiner: joins have to be signed and there is no signer")
	}
	defaults(&cfg.MTU, 1500)
	defaults(&cfg.Refresh, 10*time.Second)
	defaults(&cfg.Resend, time.Second)
	defaults(&cfg.Robustness, 2)
	return &Joiner{cfg: cfg, signer: signer, random: random, groups: make(map[netip.Addr]*group)}, nil
}

func defaults[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// Set makes want the memberships: new and changed ones are due at once and Robustness times, a group that is not in want
// is left. A membership that cannot be sent is an error and leaves its group as it was; the others are taken.
func (j *Joiner) Set(now time.Time, want []Membership) error {
	for _, g := range j.cfg.Standing {
		want = append(slices.Clip(want), Membership{Group: g})
	}
	return j.setAll(now, want)
}

// Leave leaves all groups, those of Config.Standing too.
func (j *Joiner) Leave(now time.Time) error { return j.setAll(now, nil) }

func (j *Joiner) setAll(now time.Time, want []Membership) error {
	var failed []error
	wanted := make(map[netip.Addr]bool, len(want))
	for _, m := range want {
		if wanted[m.Group] {
			failed = append(failed, fmt.Errorf("group %v is there twice", m.Group))
			continue
		}
		wanted[m.Group] = true
		if err := j.set(now, m); err != nil {
			failed = append(failed, fmt.Errorf("join %v at %v: %w", m.Group, m.Epoch, err))
		}
	}
	for addr, g := range j.groups {
		if wanted[addr] || g.leaves {
			continue
		}
		if g.sent.IsZero() { // nobody heard of it
			delete(j.groups, addr)
			continue
		}
		g.leave(now, j.cfg.Robustness)
	}
	return errors.Join(failed...)
}

func (j *Joiner) set(now time.Time, m Membership) error {
	if !m.Group.Is4() || !m.Group.IsMulticast() {
		return fmt.Errorf("%v is no IPv4 multicast address", m.Group)
	}
	g := j.groups[m.Group]
	if g != nil && !g.leaves && g.same(m) {
		return nil
	}
	parts, err := join.Split(join.Join{
		Group: m.Group, Requester: j.cfg.Requester, Link: j.cfg.Link,
		Epoch: m.Epoch, Owner: m.Owner, Standby: m.Standby, KeyID: m.KeyID,
	}, join.Room(j.cfg.MTU))
	if err != nil {
		return err
	}
	if g == nil {
		g = &group{}
		j.groups[m.Group] = g
	}
	g.Membership, g.parts, g.leaves = m, parts, false
	g.owed, g.at = j.cfg.Robustness, now
	return nil
}

func (g *group) same(m Membership) bool {
	return g.Epoch == m.Epoch && g.KeyID == m.KeyID &&
		slices.Equal(g.Owner.Permit, m.Owner.Permit) && slices.Equal(g.Owner.Deny, m.Owner.Deny) &&
		slices.Equal(g.Standby.Permit, m.Standby.Permit) && slices.Equal(g.Standby.Deny, m.Standby.Deny)
}

func (g *group) leave(now time.Time, times int) {
	p := g.parts[0]
	p.Part, p.Parts, p.Leave = 1, 1, true
	p.Owner, p.Standby = portion.Set{}, portion.Set{}
	g.parts, g.leaves = []join.Join{p}, true
	g.owed, g.at = times, now
}

// Groups are the groups that are joined, in order.
func (j *Joiner) Groups() []netip.Addr {
	var list []netip.Addr
	for addr, g := range j.groups {
		if !g.leaves {
			list = append(list, addr)
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return list
}

// Query takes a querier's question: the groups that it asks for are due after a random delay within its response time
// (RFC 3376 section 5.2), all groups of a general query together.
func (j *Joiner) Query(now time.Time, q igmp.Query) error {
	var b [8]byte
	if _, err := io.ReadFull(j.random, b[:]); err != nil {
		return fmt.Errorf("random delay: %w", err)
	}
	at := now
	if q.MaxResp > 0 {
		at = now.Add(time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(q.MaxResp)))
	}
	for addr, g := range j.groups {
		if g.leaves || !q.General() && addr != q.Group {
			continue
		}
		answer := at
		if least := g.sent.Add(minGap); answer.Before(least) {
			answer = least
		}
		if answer.Before(g.at) {
			g.at = answer
		}
	}
	return nil
}

// Due returns the reports to send now, every join in them signed afresh, and when to call again: zero if nothing is
// planned. Joins that could not be signed are in the error and tried again after Resend; the reports are good all the same.
func (j *Joiner) Due(now time.Time) (reports [][]byte, next time.Time, err error) {
	var joins []join.Signed
	var failed []error
	for _, addr := range j.order() {
		g := j.groups[addr]
		if g.at.After(now) {
			continue
		}
		signed, err := j.sign(now, g)
		if err != nil {
			failed = append(failed, fmt.Errorf("join %v at %v: %w", addr, g.Epoch, err))
			g.at = now.Add(j.cfg.Resend)
			continue
		}
		joins = append(joins, signed...)
		g.sent = now
		if g.owed--; g.owed > 0 {
			g.at = now.Add(j.cfg.Resend)
			continue
		}
		g.owed, g.at = 0, now.Add(j.cfg.Refresh)
		if g.leaves {
			delete(j.groups, addr)
		}
	}
	reports, err = join.Batch(joins, j.cfg.MTU)
	if err != nil {
		failed = append(failed, err)
	}
	return reports, j.next(), errors.Join(failed...)
}

// next is when something is due again; zero: never.
func (j *Joiner) next() time.Time {
	var next time.Time
	for _, g := range j.groups {
		if next.IsZero() || g.at.Before(next) {
			next = g.at
		}
	}
	return next
}

// Unsent says that reports of Due at now could not be sent: their joins are due again after Resend. It returns
// when to call Due again.
func (j *Joiner) Unsent(now time.Time) time.Time {
	for _, g := range j.groups {
		if g.sent.Equal(now) {
			g.owed++
			g.at = now.Add(j.cfg.Resend)
		}
	}
	return j.next()
}

// order is all groups, leaves first, then by address.
func (j *Joiner) order() []netip.Addr {
	list := make([]netip.Addr, 0, len(j.groups))
	for addr := range j.groups {
		list = append(list, addr)
	}
	slices.SortFunc(list, func(x, y netip.Addr) int {
		if a, b := j.groups[x].leaves, j.groups[y].leaves; a != b {
			if a {
				return -1
			}
			return 1
		}
		return x.Compare(y)
	})
	return list
}

func (j *Joiner) sign(now time.Time, g *group) ([]join.Signed, error) {
	parts := slices.Clone(g.parts)
	for i := range parts {
		parts[i].Change = g.owed > 0 && !g.leaves
	}
	if err := join.Stamp(parts, j.nextStamp(now, len(parts)), j.random); err != nil {
		return nil, err
	}
	signed := make([]join.Signed, len(parts))
	for i, p := range parts {
		var err error
		if j.cfg.Unsigned {
			signed[i], err = join.Unsigned(p)
		} else {
			signed[i], err = j.signer.Sign(now, p)
		}
		if err != nil {
			return nil, err
		}
	}
	return signed, nil
}

// nextStamp is the time of a set of n parts: now, but behind all stamps given before.
func (j *Joiner) nextStamp(now time.Time, n int) time.Time {
	at := now.UnixNano()
	if at <= j.stamp && j.stamp-at < int64(clockStep) {
		at = j.stamp + 1
	}
	j.stamp = at + int64(n) - 1
	return time.Unix(0, at)
}
