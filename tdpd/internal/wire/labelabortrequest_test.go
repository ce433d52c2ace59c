package wire

import "testing"

var labelAbortRequests = []example{
	{"labelabortrequest", LabelAbortRequest{Head{ID: 42}, FEC{prefix("10.0.0.1/32")}, 7}},
}

func TestLabelAbortRequest(t *testing.T) { both(t, labelAbortRequests) }

func FuzzLabelAbortRequest(f *testing.F) { fuzz(f, TypeLabelAbortRequest, labelAbortRequests) }
