package policy

import (
	"fmt"
	"math"
)

// connections reads connections per weight, where those accepted within a second count as well: a service whose connections are short has few
// of them at any time, and is shared out by accepts. Small numbers are noisy: the band is three standard deviations of the number that a
// server is to have, at least.
func (p *pool) connections() reading {
	const most = 1e9
	r := reading{least: 1e-3}
	// Weights count relative to their mean, so that a reading is connections of an average server.
	scale := func(i int) float64 { return p.share(i) * float64(len(p.names)) }
	for i, name := range p.names {
		l, ok := p.in.Loads[name]
		if !ok || isSilent(l) {
			r.said = append(r.said, math.NaN())
			continue
		}
		r.said = append(r.said, (number(float64(l.Connections), most)+number(l.Accepts, most))/scale(i))
	}
	r.noise = func(mean float64, i int) float64 { return 3 * math.Sqrt(max(mean*scale(i), 1)) / scale(i) }
	r.text = func(mean float64, i int) string {
		if math.IsNaN(r.said[i]) {
			return fmt.Sprintf("does not say its connections, mean %.0f for its weight", mean*scale(i))
		}
		return fmt.Sprintf("has %.0f connections, mean %.0f for its weight", r.said[i]*scale(i), mean*scale(i))
	}
	return r
}
