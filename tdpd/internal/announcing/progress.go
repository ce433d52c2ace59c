package announcing

import (
	"net/netip"
	"slices"
	"time"
)

// Wait is what a phase waits for.
type Wait uint8

// Waits.
const (
	ForNothing  Wait = iota
	ForService       // that is reached
	ForHost          // route of a server here
	ForSpeaker       // with sessions
	ForTelling       // neighbors to be told
	ForSettling      // them, and those behind them, to converge
)

var waitNames = [...]string{"nothing", "a service that is reached", "a server of this host with a label", "a speaker with sessions", "neighbors to be told", "neighbors to converge"}

// String says it in words.
func (w Wait) String() string {
	if int(w) < len(waitNames) {
		return waitNames[w]
	}
	return "?"
}

// Progress is how far coming in, or going, is.
type Progress struct {
	Phase   Phase
	Since   time.Time // of the phase
	Waits   Wait
	Until   time.Time // at the latest, then the next phase begins; zero: it does not by itself
	Drained bool      // by the operator
	Forced  bool      // the phase before did not wait for all neighbors: patience was over
	VIPs    []VIP     // by address
	Server  bool      // as in Config
	// Hosts are servers' host routes, whether they are announced or not.
	Hosts  []netip.Prefix
	Counts Counts
}

// Counts are since the beginning.
type Counts struct {
	Announced, Withdrawn uint64 // VIPs and what covers them
	Damped               uint64 // times that a VIP ceased to be reached, and stays out for that
}

// VIP is one that services have.
type VIP struct {
	Address   netip.Addr
	Announced bool
	Reach     Reach
	Damped    time.Time // it stays out until then; zero: it does not
	Flaps     int       // times that it ceased to be reached
}

// Progress says how far it is.
func (a *Announcing) Progress(now time.Time) Progress {
	p := Progress{Phase: a.phase, Since: a.step.begun, Drained: a.drained, Forced: a.step.forced, Server: a.config.Server, Counts: a.counts}
	for _, h := range a.hosts {
		p.Hosts = append(p.Hosts, h.Prefix)
	}
	switch {
	case a.phase == Entering && !a.hasSome():
		if p.Waits = ForService; p.Server {
			p.Waits = ForHost
		}
	case !a.waits():
	case !a.step.told.IsZero():
		p.Waits = ForSettling
	case !a.speaks:
		p.Waits = ForSpeaker
	default:
		p.Waits = ForTelling
	}
	if a.waits() {
		p.Until = a.due()
	}
	for addr, v := range a.vips {
		if !v.present {
			continue
		}
		one := VIP{Address: addr, Reach: v.reach, Flaps: v.flaps}
		if now.Before(v.damped) {
			one.Damped = v.damped
		}
		for _, path := range a.paths {
			one.Announced = one.Announced || path.Prefix.IsSingleIP() && path.Prefix.Addr() == addr
		}
		p.VIPs = append(p.VIPs, one)
	}
	slices.SortFunc(p.VIPs, func(x, y VIP) int { return x.Address.Compare(y.Address) })
	return p
}
