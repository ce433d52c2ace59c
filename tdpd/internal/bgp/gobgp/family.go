package gobgp

import (
	"fmt"

	api "github.com/osrg/gobgp/v3/api"

	"github.com/manycast/manycast/tdpd/internal/bgp"
)

var families = map[bgp.Family]struct {
	afi  api.Family_Afi
	safi api.Family_Safi
}{
	bgp.IPv4Unicast:  {api.Family_AFI_IP, api.Family_SAFI_UNICAST},
	bgp.IPv6Unicast:  {api.Family_AFI_IP6, api.Family_SAFI_UNICAST},
	bgp.IPv4Labelled: {api.Family_AFI_IP, api.Family_SAFI_MPLS_LABEL},
	bgp.IPv6Labelled: {api.Family_AFI_IP6, api.Family_SAFI_MPLS_LABEL},
	bgp.IPv4FlowSpec: {api.Family_AFI_IP, api.Family_SAFI_FLOW_SPEC_UNICAST},
	bgp.IPv6FlowSpec: {api.Family_AFI_IP6, api.Family_SAFI_FLOW_SPEC_UNICAST},
}

func toFamily(f bgp.Family) *api.Family {
	return &api.Family{Afi: families[f].afi, Safi: families[f].safi}
}

func fromFamily(f *api.Family) (bgp.Family, error) {
	for ours, theirs := range families {
		if theirs.afi == f.GetAfi() && theirs.safi == f.GetSafi() {
			return ours, nil
		}
	}
	return 0, fmt.Errorf("family %v", f)
}
