package wire

import "testing"

var labelReleases = []example{
	{"labelrelease", LabelRelease{Head: Head{ID: 42}, FEC: FEC{prefix("10.0.0.1/32")}}},
	{"labelrelease_status", LabelRelease{
		Head: Head{ID: 42}, FEC: FEC{prefix("10.0.0.1/32")}, Label: new(LabelFirst),
		Status: &Status{Code: StatusLoopDetected, MessageID: 7, MessageType: TypeLabelMapping},
	}},
	{"labelrelease_wildcard", LabelRelease{Head: Head{ID: 42}, FEC: FEC{TypedWildcard{IPv4}}}},
}

func TestLabelRelease(t *testing.T) { both(t, labelReleases) }

func FuzzLabelRelease(f *testing.F) { fuzz(f, TypeLabelRelease, labelReleases) }
