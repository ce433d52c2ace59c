package edge

import (
	"errors"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
	"github.com/manycast/manycast/tdpd/internal/bgp"
)

// answerOf makes an Answer of an error that a program may want to know; others stay errors.
func answerOf(a *tdpdv1.Answer, err error) (*tdpdv1.Answer, error) {
	var why tdpdv1.Why
	switch {
	case errors.Is(err, bgp.ErrNone):
		why = tdpdv1.Why_WHY_NO_BGP
	case errors.Is(err, bgp.ErrNoNeighbor):
		why = tdpdv1.Why_WHY_NO_NEIGHBOR
	default:
		return a, err
	}
	return &tdpdv1.Answer{Router: a.GetRouter(), About: &tdpdv1.Answer_Unanswered{Unanswered: &tdpdv1.Unanswered{Why: why, Text: err.Error()}}}, nil
}
