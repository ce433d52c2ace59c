package alloc

import (
	"math"

	"github.com/manycast/manycast/internal/portion"
	allocv1 "github.com/manycast/manycast/proto/alloc/v1"
)

// Bounds of what is taken of a server's word.
const (
	maxWanted = 64
	maxHot    = 16
	maxFigure = 1e15 // bytes a second, connections
)

// LoadToProto converts a load for reports and registrations.
func LoadToProto(l Load) *allocv1.Load {
	p := &allocv1.Load{
		Connections: uint32(min(max(l.Connections, 0), math.MaxUint32)), Accepts: l.Accepts, Bytes: l.Bytes, Cpu: l.CPU, Memory: l.Memory,
		Application: l.Application, Queue: uint32(min(max(l.Queue, 0), math.MaxUint32)),
		Kept: keptToProto(l.Kept),
	}
	for _, w := range l.Wanted {
		p.Wanted = append(p.Wanted, w.String())
	}
	for _, h := range l.Hot {
		p.Hot = append(p.Hot, &allocv1.Hot{Portion: h.Portion.String(), Share: h.Share})
	}
	return p
}

// LoadFromProto converts what a server says. It may say anything: what is no number or negative is 0, shares are at most 1, an application load
// that is no number was not given, and portions that cannot be read, or are too many, are left out.
func LoadFromProto(p *allocv1.Load) Load {
	l := Load{
		Connections: int(p.GetConnections()), Queue: int(p.GetQueue()),
		Accepts: figure(p.GetAccepts(), maxFigure), Bytes: figure(p.GetBytes(), maxFigure), CPU: figure(p.GetCpu(), 1), Memory: figure(p.GetMemory(), 1),
		Kept: keptFromProto(p.GetKept()),
	}
	if p != nil && p.Application != nil && !math.IsNaN(p.GetApplication()) {
		given := figure(p.GetApplication(), maxFigure)
		l.Application = &given
	}
	for _, text := range p.GetWanted() {
		if w, err := portion.Parse(text); err == nil && len(l.Wanted) < maxWanted {
			l.Wanted = append(l.Wanted, w)
		}
	}
	for _, h := range p.GetHot() {
		if w, err := portion.Parse(h.GetPortion()); err == nil && len(l.Hot) < maxHot {
			l.Hot = append(l.Hot, Hot{w, figure(h.GetShare(), 1)})
		}
	}
	return l
}

func figure(f, most float64) float64 {
	if !(f > 0) { // NaN too
		return 0
	}
	return min(f, most)
}
