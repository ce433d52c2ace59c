package load

import (
	"sync"

	"github.com/manycast/manycast/internal/control"
	"github.com/manycast/manycast/lbd/internal/agent"
)

// others are the servers that are heard on the control channel.
type others struct {
	mu      sync.Mutex
	members map[string]control.Member
}

func (o *others) hear(e control.Event) {
	changed, ok := e.(control.Changed)
	if !ok || changed.Member.Role != control.Server {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.members == nil {
		o.members = make(map[string]control.Member)
	}
	o.members[changed.Member.Name] = changed.Member
}

// loads are the figures of those that serve beside the server of that name. Whoever says that it does not serve, or is silent, is
// left out: it takes nobody. Whoever does not say its load may be idle.
func (o *others) loads(s agent.Serving, own string) []float64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []float64
	for name, m := range o.members {
		if takes(name, own, s, m) {
			out = append(out, Figure(m.Loads[s.Name]))
		}
	}
	return out
}
