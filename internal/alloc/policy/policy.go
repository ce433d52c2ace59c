package policy

import (
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/portion"
)

// Input is what a decision is made from.
type Input struct {
	Rules   Rules
	Servers []alloc.Server        // the pool, with configured weights
	Loads   map[string]alloc.Load // by server, of its last report; not there: unknown
	Wishes  map[string]Wishes     // by server, for policy wanted; not there: what its Load asks for
	Current alloc.Allocation

	// Due says that Rules.Balance.Interval has passed since reports last moved anybody, so that they may again. If not, users move for
	// those who come and go, and as the operator says, and all else stays.
	Due bool
}

// Decision is what alloc.Next is to be asked for.
type Decision struct {
	Servers []alloc.Server // those of the Input, with the weights that the policy gives them
	Fixed   []alloc.Fixed  // disjoint, at most alloc.MaxFixed
	Why     []Reason
}

// Reason says, for people, why a server's share or a portion is given as it is.
type Reason struct {
	Server  string
	Portion portion.Portion // invalid: the server's share of the slots
	Text    string          // what follows the server's name: "is at 0.93, mean 0.61"
	Refused bool            // nothing changes: what was asked for is not given
	Warning bool            // what the operator asked for is not given
}

// String is "s2 is at 0.93, mean 0.61".
func (r Reason) String() string {
	if r.Portion.IsValid() {
		return r.Server + " " + r.Text + " " + r.Portion.String()
	}
	return r.Server + " " + r.Text
}

// Want is what alloc.Next makes the allocation of this decision from.
func (d Decision) Want(rules Rules) alloc.Want {
	return alloc.Want{Slots: rules.Slots, Servers: d.Servers, Fixed: d.Fixed}
}

// Decide applies the service's policy. It is deterministic, and takes any loads.
func Decide(in Input) Decision { return decide(in, fixedOf(in.Current)) }

// decide takes the portions that are fixed now apart.
func decide(in Input, present []alloc.Fixed) Decision {
	in.Rules.Balance = in.Rules.Balance.OrDefault()
	p := newPool(in)
	p.fixPrefixes()
	p.present = slices.DeleteFunc(slices.Clone(present), func(f alloc.Fixed) bool { return p.isFixed(f.Portion) })
	switch in.Rules.Policy {
	case Load:
		p.feedback(p.loads)
	case LeastConnections:
		p.feedback(p.connections)
	case Wanted:
		p.grant()
	}
	return Decision{Servers: p.servers(), Fixed: p.fixed, Why: p.why}
}

// pool is the servers that may own something, and what they are to have.
type pool struct {
	in      Input
	names   []string // sorted
	index   map[string]int
	weight  []int         // configured
	weights int           // sum
	count   []int         // slots to have; nil: shares go by weight
	slots   int           // sum of count
	present []alloc.Fixed // fixed now, but not by the operator
	fixed   []alloc.Fixed
	why     []Reason
}

func newPool(in Input) *pool {
	p := &pool{in: in, index: map[string]int{}}
	members := make([]alloc.Server, 0, len(in.Servers))
	for _, s := range in.Servers {
		if in.Rules.Policy == alloc.Equal {
			s.Weight = 1
		}
		if s.Alive && !s.Drained && s.Weight > 0 {
			members = append(members, s)
		}
	}
	slices.SortFunc(members, func(a, b alloc.Server) int { return compare(a.Name, b.Name) })
	for i, s := range members {
		p.names, p.weight = append(p.names, s.Name), append(p.weight, s.Weight)
		p.index[s.Name] = i
		p.weights += s.Weight
	}
	return p
}

// servers are those of the input, with the weights that came out.
func (p *pool) servers() []alloc.Server {
	out := slices.Clone(p.in.Servers)
	for n, s := range out {
		i, ok := p.index[s.Name]
		switch {
		case ok && p.count != nil:
			out[n].Weight = p.count[i]
		case p.in.Rules.Policy == alloc.Equal:
			out[n].Weight = 1
		}
	}
	return out
}

// share is what a server's weight gives it: 0 to 1.
func (p *pool) share(i int) float64 { return float64(p.weight[i]) / float64(p.weights) }

func (p *pool) may(server string) bool {
	_, ok := p.index[server]
	return ok
}

// isFixed reports whether some of the portion is given to somebody already.
func (p *pool) isFixed(q portion.Portion) bool {
	return slices.ContainsFunc(p.fixed, func(f alloc.Fixed) bool { return f.Portion.Overlaps(q) })
}

// room reports whether more portions can be fixed, in the place of one that is: an allocation and a router's classifier are bounded.
func (p *pool) room(instead portion.Portion, more ...portion.Portion) bool {
	all := slices.DeleteFunc(portionsOf(p.fixed), func(f portion.Portion) bool { return f == instead })
	return alloc.CheckFixed(p.in.Rules.Slots, append(all, more...)) == nil
}

// inherited is a portion with its owner, or else its standby, which has its users already; without an owner where neither is there.
func (p *pool) inherited(f alloc.Fixed) alloc.Fixed {
	if !p.may(f.Owner) {
		f.Owner, f.Standby = f.Standby, ""
	}
	if !p.may(f.Standby) {
		f.Standby = ""
	}
	return f
}

// quota is how many of all the portions that there can be servers have by their own word, each: it takes four to have them all.
func (p *pool) quota(all int) int { return all / max(1, min(len(p.names), 4)) }

func (p *pool) say(server int, text string) {
	p.why = append(p.why, Reason{Server: p.names[server], Text: text})
}
