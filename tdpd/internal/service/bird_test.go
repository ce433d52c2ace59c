package service

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/manycast/manycast/tdpd/internal/routes"
)

func TestRoutesOfBIRDAreWarnedOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r1, _, _ := chain(t)
		for _, x := range []struct {
			protocol uint8
			warned   bool
		}{{protocol: 188}, {protocolBIRD, true}} {
			r := via("10.0.12.2", 2)
			r.Protocol = x.protocol
			r1.routes.Send(routes.Change{Routes: map[netip.Prefix]*routes.Route{prefix("10.9.0.81/32"): r}})
			synctest.Wait()
			if strings.Contains(r1.log.String(), "route_protocol") != x.warned {
				t.Errorf("a route of protocol %d: warned: %v", x.protocol, !x.warned)
			}
		}
	})
}
