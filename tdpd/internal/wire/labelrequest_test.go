package wire

import "testing"

var labelRequests = []example{
	{"labelrequest", LabelRequest{
		Head: Head{ID: 42}, FEC: FEC{prefix("10.0.0.1/32")}, HopCount: new(uint8(1)), PathVector: []LSRID{{1, 1, 1, 1}},
	}},
	{"labelrequest_wildcard", LabelRequest{Head: Head{ID: 42}, FEC: FEC{TypedWildcard{IPv6}}}},
}

func TestLabelRequest(t *testing.T) { both(t, labelRequests) }

func TestLabelRequestRefuses(t *testing.T) {
	refused(t, map[string]Message{
		"wildcard": LabelRequest{FEC: FEC{Wildcard{}}},
		"two":      LabelRequest{FEC: FEC{prefix("10.0.0.1/32"), prefix("10.0.0.2/32")}},
	})
}

func FuzzLabelRequest(f *testing.F) { fuzz(f, TypeLabelRequest, labelRequests) }
