package membership

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/epoch"
	"github.com/manycast/manycast/internal/portion"
	"github.com/manycast/manycast/internal/steer"
)

// Snapshot is what has to outlive the process: the terms, the owners' numbers, and the members, so that the next run wants
// what the kernel has. Timers are not in it: a restored member has one Group Membership Interval to show up.
type Snapshot struct {
	Owners  []OwnerEntry   `json:"owners"`
	Private []PrivateEntry `json:"private"`
	Public  []PublicEntry  `json:"public"`
}

// OwnerEntry is a requester's owner number.
type OwnerEntry struct {
	Requester netip.Addr  `json:"requester"`
	Owner     steer.Owner `json:"owner"`
}

// PrivateEntry is a private group.
type PrivateEntry struct {
	Group   netip.Addr    `json:"group"`
	Term    uint64        `json:"term"`
	Members []MemberEntry `json:"members"`
}

// MemberEntry is a requester's set.
type MemberEntry struct {
	Requester netip.Addr  `json:"requester"`
	Port      string      `json:"port"`
	Epoch     epoch.Epoch `json:"epoch"`
	KeyID     uint32      `json:"key_id"`
	Own       portion.Set `json:"own"`
	Standby   portion.Set `json:"standby"`
}

// PublicEntry is a public group on a port. In EXCLUDE mode Blocked are the excluded sources.
type PublicEntry struct {
	Port    string       `json:"port"`
	Group   netip.Addr   `json:"group"`
	Exclude bool         `json:"exclude"`
	Wanted  []netip.Addr `json:"wanted"`
	Blocked []netip.Addr `json:"blocked"`
}

// Snapshot copies the state.
func (t *Table) Snapshot(now time.Time) Snapshot {
	var s Snapshot
	for requester, n := range t.owners.number {
		s.Owners = append(s.Owners, OwnerEntry{requester, n})
	}
	for addr, g := range t.private {
		e := PrivateEntry{Group: addr, Term: g.term}
		for requester, m := range g.members {
			e.Members = append(e.Members, MemberEntry{requester, m.port, m.epoch, m.keyID, m.own, m.standby})
		}
		s.Private = append(s.Private, e)
	}
	for _, p := range t.ports {
		for addr, g := range p.groups {
			e := PublicEntry{Port: p.Name, Group: addr, Exclude: g.exclude}
			for source, timer := range g.sources {
				if running(timer, now) {
					e.Wanted = append(e.Wanted, source)
				} else {
					e.Blocked = append(e.Blocked, source)
				}
			}
			s.Public = append(s.Public, e)
		}
	}
	return s
}

// Restore takes a snapshot into an empty Table; members is false where the machine has started anew meanwhile and only terms
// and numbers hold. An entry that does not fit is left out, and the error names the first one; the rest is restored.
func (t *Table) Restore(now time.Time, s Snapshot, members bool) ([]Action, error) {
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for _, e := range s.Owners {
		if _, taken := t.owners.holder[e.Owner]; taken || e.Owner < 1 || e.Owner > t.owners.max || !e.Requester.IsValid() {
			keep(fmt.Errorf("owner %d of %v", e.Owner, e.Requester))
			continue
		}
		t.owners.set(e.Requester, e.Owner)
	}
	for _, e := range s.Private {
		keep(t.restorePrivate(now, e, members))
	}
	if members {
		for _, e := range s.Public {
			t.restorePublic(now, e)
		}
	}
	return t.take(), first
}

func (t *Table) restorePrivate(now time.Time, e PrivateEntry, members bool) (first error) {
	if !e.Group.IsMulticast() || IsPublic(e.Group) {
		return fmt.Errorf("group %v is not private", e.Group)
	}
	g, err := t.newPrivate(e.Group)
	if err != nil {
		return err
	}
	g.term = e.Term
	if !members {
		return nil
	}
	for _, m := range e.Members {
		owner, ok := t.owners.get(m.Requester, t.inUse)
		if !ok || !m.Requester.IsValid() || len(g.members) >= t.cfg.Limits.Requesters {
			first = fmt.Errorf("group %v: member %v: %w", e.Group, m.Requester, ErrFull)
			continue
		}
		next := &member{
			owner: owner, port: m.Port, epoch: m.Epoch, keyID: m.KeyID, own: m.Own, standby: m.Standby,
			since: now, expires: now.Add(t.cfg.Membership()),
		}
		if err := t.replace(g, m.Requester, g.members[m.Requester], next); err != nil {
			first = fmt.Errorf("group %v: member %v: %w", e.Group, m.Requester, err)
		}
	}
	return first
}

// restorePublic waits for no port: SetPort finds the groups of a port that was restored before it.
func (t *Table) restorePublic(now time.Time, e PublicEntry) {
	p := t.ports[e.Port]
	if p == nil {
		p = &port{Port: Port{Name: e.Port}, groups: make(map[netip.Addr]*group)}
		t.ports[e.Port] = p
	}
	if !IsPublic(e.Group) || len(p.groups) >= t.cfg.Limits.Groups || len(e.Wanted)+len(e.Blocked) > t.cfg.Limits.Sources ||
		p.sources+len(e.Wanted)+len(e.Blocked) > t.cfg.Limits.PortSources || p.groups[e.Group] != nil {
		t.dropped++
		return
	}
	until := now.Add(t.cfg.Membership())
	g := newGroup()
	g.exclude, g.timer = e.Exclude, until
	for _, s := range e.Wanted {
		g.sources[s] = until
	}
	for _, s := range e.Blocked {
		if e.Exclude {
			g.sources[s] = time.Time{}
		}
	}
	p.groups[e.Group] = g
	p.sources += len(g.sources)
	t.arm(until)
	t.act(Changed{})
}
