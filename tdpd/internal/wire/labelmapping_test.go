package wire

import "testing"

var labelMappings = []example{
	{"labelmapping", LabelMapping{Head: Head{ID: 42}, FEC: FEC{prefix("10.0.0.1/32")}, Label: LabelImplicitNull}},
	{"labelmapping_all", LabelMapping{
		Head:       Head{ID: 42},
		FEC:        FEC{prefix("0.0.0.0/0"), prefix("2001:db8:1:8000::/49"), prefix("192.0.2.128/25")},
		Label:      LabelLast,
		RequestID:  new(uint32(7)),
		HopCount:   new(uint8(2)),
		PathVector: []LSRID{{1, 1, 1, 1}, {2, 2, 2, 2}},
	}},
}

func TestLabelMapping(t *testing.T) { both(t, labelMappings) }

func TestLabelMappingRefuses(t *testing.T) {
	fec := FEC{prefix("10.0.0.1/32")}
	refused(t, map[string]Message{
		"no FEC":         LabelMapping{Label: 16},
		"wildcard":       LabelMapping{Label: 16, FEC: FEC{Wildcard{}}},
		"typed wildcard": LabelMapping{Label: 16, FEC: FEC{TypedWildcard{IPv4}}},
		"router alert":   LabelMapping{Label: 1, FEC: fec},
		"label 4":        LabelMapping{Label: 4, FEC: fec},
		"label 15":       LabelMapping{Label: 15, FEC: fec},
		"label 2^20":     LabelMapping{Label: 1 << 20, FEC: fec},
	})
}

func FuzzLabelMapping(f *testing.F) { fuzz(f, TypeLabelMapping, labelMappings) }
