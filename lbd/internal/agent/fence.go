package agent

import (
	"time"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/internal/damping"
)

// presence is whether a server on a control channel takes its users. Others take them when it says that it does not, so it
// ceases before it says so, and says that it is back before it takes them again.
type presence struct {
	phase    phase
	takesAt  time.Time // when it is returning
	starting bool      // it took nobody before, and nothing is known of the application
	fenced   time.Time // until then; zero: it is not
	back     time.Time // until then it has just come back; zero: it has not
	atLeast  time.Time // until then, however much it is needed
	fencedBy string
	leaving  bool
	damper   damping.Damper
}

type phase int

const (
	present phase = iota
	returning
	absent
)

// fenceAtLeast is how long a server stays out though nobody else takes its users: long enough to be heard.
const fenceAtLeast = time.Second

func newPresence(alive bool) presence {
	p := presence{damper: damping.Damper{First: 5 * time.Second, Max: 5 * time.Minute, Forget: 10 * time.Minute}}
	if !alive {
		p.phase, p.starting = absent, true
	}
	return p
}

// takes reports whether the server takes what is allocated.
func (c *Core) takes() bool { return c.presence.phase == present }

// status is what the server says of itself; nil: there is nowhere to say it.
func (c *Core) status() *control.Status {
	if c.hearing == nil {
		return nil
	}
	why := c.why()
	return &control.Status{OK: why == "", Why: why}
}

// why says why others should take the server's users; empty: they should not.
func (c *Core) why() string {
	p := &c.presence
	switch {
	case p.leaving:
		return control.Leaving
	case !p.fenced.IsZero():
		return control.Fenced + ": " + p.fencedBy
	case p.starting:
		return "starting"
	case c.judged && !c.healthy:
		return "the application does not answer"
	}
	return ""
}

// settleIn brings the presence to what is known, one step at a time.
func (c *Core) settleIn(now time.Time) []Action {
	p := &c.presence
	if c.hearing == nil {
		return nil
	}
	if !p.fenced.IsZero() && (!now.Before(p.fenced) || !now.Before(p.atLeast) && c.isNeeded()) {
		p.fenced = time.Time{}
	}
	switch isWell := c.why() == ""; {
	case !isWell && p.phase != absent:
		p.phase, p.back = absent, time.Time{}
	case isWell && p.phase == absent:
		p.phase, p.takesAt = returning, now.Add(c.settle)
	case p.phase == returning && !now.Before(p.takesAt) && c.specs != nil:
		p.phase, p.back = present, now.Add(stoodSaid)
		apply := c.apply()
		apply.Revive = true
		return []Action{apply}
	case !p.back.IsZero() && !now.Before(p.back):
		p.back = time.Time{}
	default:
		return nil
	}
	return []Action{c.apply()}
}

// isNeeded reports whether nobody else takes some of this server's users: then staying out helps nobody. Whoever hears nobody at all
// cannot know.
func (c *Core) isNeeded() bool {
	if c.hearing.deaf {
		return false
	}
	for name := range c.held {
		a := c.held[name]
		for cell := range a.Owner {
			if a.OwnerOf(cell) == c.name && !c.isThere(a.StandbyOf(cell)) {
				return true
			}
		}
	}
	return false
}

// isThere reports whether a server may serve, as far as is heard.
func (c *Core) isThere(name string) bool {
	m, known := c.hearing.members[name]
	return known && (m.health == control.Available || m.health == control.Unknown)
}

// Lapsed tells that the data plane has ceased by itself: for so long no heartbeat left.
func (c *Core) Lapsed(now time.Time) []Action { return c.fence(now, "it was silent for too long") }

// fence keeps a server out that others have taken for dead, longer each time.
func (c *Core) fence(now time.Time, why string) []Action {
	if c.hearing == nil || c.presence.phase != present {
		return nil
	}
	p := &c.presence
	p.phase, p.back = absent, time.Time{}
	p.fenced, p.fencedBy, p.atLeast = p.damper.Fail(now), why, now.Add(fenceAtLeast)
	warn := Warn{Text: "takes nobody until " + p.fenced.Format(time.TimeOnly) + ", unless nobody else does: " + why}
	return []Action{c.apply(), warn}
}

// Leave tells that the server ends: it takes nobody any more.
func (c *Core) Leave(now time.Time) []Action {
	c.presence.leaving = true
	return c.settleIn(now)
}

// presenceTimes are when something is due of presence and takeovers.
func (c *Core) presenceTimes() []time.Time {
	var out []time.Time
	if c.presence.phase == returning && c.specs != nil {
		out = append(out, c.presence.takesAt)
	}
	if p := c.presence; !p.back.IsZero() {
		out = append(out, p.back)
	}
	if p := c.presence; !p.fenced.IsZero() {
		out = append(out, p.fenced)
		if c.isNeeded() {
			out = append(out, p.atLeast)
		}
	}
	if c.hearing == nil {
		return out
	}
	if end := c.hearing.recovers(); !end.IsZero() {
		out = append(out, end)
	}
	if c.takes() {
		for _, said := range c.hearing.claims {
			out = append(out, said.at)
		}
	}
	return out
}
