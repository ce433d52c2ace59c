package leader

import (
	"slices"

	"github.com/manycast/manycast/internal/alloc"
	"github.com/manycast/manycast/internal/alloc/policy"
	"github.com/manycast/manycast/internal/join"
	"github.com/manycast/manycast/internal/service"
)

// usualMTU is what links of servers are taken to have, in bytes.
const usualMTU = 1500

// checked is what routers would say of an allocation: to find it out takes long where there are many slots.
type checked struct {
	allocation alloc.Allocation
	err        error
}

// isJoined says whether servers join for the service's users: with mode tags they may have no group for it.
func (p *pool) isJoined() bool {
	return p.spec != nil && (p.spec.Mode != service.Tags || p.spec.Group.IsValid())
}

// warn tells what the operator asked for and does not get, and whose joins no router takes, once while it is so.
func (p *pool) warn(next alloc.Allocation, said []policy.Reason) []Action {
	var texts []string
	for _, r := range said {
		if r.Warning {
			texts = append(texts, r.String())
		}
	}
	switch {
	case !p.isJoined():
		p.checked = checked{}
	case !next.Same(p.checked.allocation):
		p.checked = checked{next, next.CheckJoins(join.MostPortions(usualMTU))}
	}
	if p.checked.err != nil {
		texts = append(texts, p.checked.err.Error())
	}
	var out []Action
	for _, text := range texts {
		if !slices.Contains(p.warned, text) {
			out = append(out, Warn{p.name, text})
		}
	}
	p.warned = texts
	return out
}
