package labels

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/manycast/manycast/tdpd/internal/wire"
)

// Restore gives FECs the labels that they had before this router restarted, and begins a recovery of that time (RFC 3478 section 3.2):
// until it is over they are kept for their FECs, and others that the kernel still has for nobody. Those that cannot be given out, or
// were given out since, are left out. New ones are of those behind, which have rested longer. It comes before Routes.
func (l *Labels) Restore(now time.Time, had map[netip.Prefix]wire.Label, others []wire.Label, recovery time.Duration) []Action {
	l.now = now
	last := NoLabel
	for _, p := range slices.SortedFunc(maps.Keys(had), netip.Prefix.Compare) {
		if _, twice := l.restored[p.Masked()]; !twice && usable(p) && l.allocator.take(had[p]) {
			l.restored[p.Masked()] = had[p]
			last = highest(last, had[p])
		}
	}
	for _, label := range others {
		if l.allocator.take(label) {
			l.unclaimed = append(l.unclaimed, label)
			last = highest(last, label)
		}
	}
	l.allocator.after(last)
	l.recovery = now.Add(recovery)
	return l.take()
}

// Recovering says whether this router's own restart is not over: the kernel's entries of the former life have to stay.
func (l *Labels) Recovering() bool { return !l.recovery.IsZero() }

func (l *Labels) recovered() {
	l.recovery = time.Time{}
	for _, p := range slices.SortedFunc(maps.Keys(l.restored), netip.Prefix.Compare) {
		l.unclaimed = append(l.unclaimed, l.restored[p])
		l.actions = append(l.actions, Freed{p, l.restored[p]})
	}
	for _, label := range l.unclaimed {
		if !l.foreign[label] {
			l.allocator.release(label)
		}
	}
	clear(l.restored)
	l.unclaimed = nil
	for _, p := range l.peers {
		l.sayEndOfLIB(p, p.families)
	}
}

// leave keeps what a peer has said for it to come back (RFC 3478 section 3.3).
func (l *Labels) leave(p *peer, reconnect time.Duration) {
	p.up, p.until, p.wildcards = false, l.now.Add(reconnect), nil
	l.requests.forget(p)
	for _, f := range l.fecs {
		if i := f.of(p); i >= 0 {
			f.remote[i].stale = true
		}
		f.unask(p)
	}
	for a := range p.addresses {
		p.addresses[a] = false
	}
	l.resolveAll(nil) // of two that claim a next hop the one with a session has it
}

// back has a peer's bindings from before wait for it to confirm them, for the time that it preserved its own state; 0: it did not.
func (l *Labels) back(p *peer, restart *wire.FTSession) {
	p.full, p.starved, p.warned = false, false, 0
	preserved := restart != nil && restart.GracefulRestart() && restart.RecoveryTime > 0
	for _, f := range l.sorted() {
		if preserved {
			f.resend(p)
		} else {
			l.unsend(f, p)
		}
		l.forget(f)
	}
	if !preserved {
		l.sweep(p, families{true, true})
		p.until = time.Time{}
		return
	}
	p.until = l.now.Add(min(restart.RecoveryTime, l.cfg.MaxRecovery))
}

// resend takes it that a peer still forwards by what it had: all of it is said again, and what holds no longer is withdrawn again,
// for a label must not be another FEC's before the peer has let go of it.
func (f *fec) resend(p *peer) {
	for i := range f.sent {
		if s := &f.sent[i]; s.peer == p {
			s.state, s.pending = former, 0
		}
	}
}

// sweep drops what is stale of a peer.
func (l *Labels) sweep(p *peer, of families) {
	for _, f := range l.sorted() {
		if i := f.of(p); i >= 0 && f.remote[i].stale && of.has(f.family()) {
			l.lose(f, i)
		}
	}
	gone := map[netip.Addr]bool{}
	for a, fresh := range p.addresses {
		if !fresh && of.has(wire.FamilyOf(a)) {
			gone[a] = true
		}
	}
	for a := range gone {
		delete(p.addresses, a)
	}
	l.resolveAddresses(gone)
}

// Tick lets time pass: peers that have not come back are forgotten, stale bindings are swept, requests sent again.
func (l *Labels) Tick(now time.Time) []Action {
	l.now = now
	for _, p := range slices.Clone(l.peers) {
		switch {
		case p.until.IsZero() || now.Before(p.until):
		case p.up:
			p.until = time.Time{}
			l.sweep(p, families{true, true})
		default:
			l.drop(p)
		}
	}
	for _, p := range l.peers {
		l.answerWildcards(p)
	}
	l.retryDue()
	if l.recovery.IsZero() || now.Before(l.recovery) {
		return l.take()
	}
	l.recovered()
	return append(l.take(), Recovered{})
}

// Next is when Tick has something to do; zero: never.
func (l *Labels) Next() time.Time {
	next := l.recovery
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, p := range l.peers {
		sooner(p.until)
		for _, w := range p.wildcards {
			if w.waits {
				sooner(w.from)
			}
		}
	}
	sooner(l.requests.next())
	return next
}
