package service

import (
	"time"

	"github.com/manycast/manycast/tdpd/internal/routes"
)

// protocolBIRD is the route protocol of BIRD (RTPROT_BIRD); protocolRedirect that of ICMP redirects: where BIRD sees a route of it, it
// removes its own to the prefix.
const (
	protocolRedirect = 1
	protocolBIRD     = 12
)

// noteBIRD warns, seldom, of BIRD's routes where those with labels have the number that BIRD does not bear.
func (s *Service) noteBIRD(now time.Time, c routes.Change) {
	k := &s.kernel
	if s.Config.Labels.RouteProtocol != protocolRedirect || !k.bird.IsZero() && now.Sub(k.bird) < retryLater {
		return
	}
	for p, r := range c.Routes {
		if r != nil && r.Protocol == protocolBIRD {
			k.bird = now
			s.Log.Warn("BIRD removes its routes beside those with labels: set labels.route_protocol to 77", "route", p)
			return
		}
	}
}
