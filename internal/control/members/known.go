package members

import (
	"container/heap"
	"net/netip"
	"time"

	"github.com/manycast/manycast/internal/control"
)

// Known is what is worth keeping of a member over a restart.
type Known struct {
	Name    string
	Role    control.Role
	Leader  bool
	Address netip.Addr
	Silent  bool   `json:",omitempty"`
	Boot    uint64 `json:",omitempty"` // the life that was heard last
	Stamp   int64  // ns, the sender's clock at its last report: nothing older begins another life
}

// Known returns the members.
func (m *Members) Known() []Known {
	var out []Known
	for _, p := range m.Members() {
		out = append(out, Known{p.Name, p.Role, p.Leader, p.Address, p.Health == control.Silent, p.Boot, m.byName[p.Name].stamp})
	}
	return out
}

// Restore tells of members from before a restart. Those that were silent are, until they are heard. Others are Unknown until then, or until
// they have been missing for so long among others that they must be silent.
func (m *Members) Restore(now time.Time, known []Known) []control.Event {
	var events []control.Event
	for _, k := range known {
		if m.byName[k.Name] != nil || len(m.byName) >= m.cfg.Members {
			continue
		}
		p := &member{Member: control.Member{Name: k.Name, Role: k.Role, Leader: k.Leader, Address: k.Address, Boot: k.Boot, Since: now}, stamp: k.Stamp, due: now}
		if k.Silent {
			p.Health = control.Silent
		}
		m.byName[k.Name] = p
		heap.Push(&m.queue, p)
		events = append(events, control.Changed{Member: p.Member})
	}
	return events
}
