package wire

import "testing"

var labelWithdraws = []example{
	{"labelwithdraw", LabelWithdraw{Head: Head{ID: 42}, FEC: FEC{prefix("10.0.0.1/32")}, Label: new(LabelFirst)}},
	{"labelwithdraw_wildcard", LabelWithdraw{Head: Head{ID: 42}, FEC: FEC{Wildcard{}}}},
}

func TestLabelWithdraw(t *testing.T) { both(t, labelWithdraws) }

func FuzzLabelWithdraw(f *testing.F) { fuzz(f, TypeLabelWithdraw, labelWithdraws) }
