package routers

import (
	"errors"

	tdpdv1 "github.com/manycast/manycast/proto/tdpd/v1"
)

// What routers say why they do not answer.
var (
	ErrNoBGP      = errors.New("the router does not speak BGP")
	ErrNoNeighbor = errors.New("the router has no such BGP neighbor")
)

// unanswered is such a word, as the router has it.
type unanswered struct{ *tdpdv1.Unanswered }

// unansweredOf is nil of any other answer.
func unansweredOf(a *tdpdv1.Answer) error {
	if u := a.GetUnanswered(); u != nil {
		return unanswered{u}
	}
	return nil
}

func (u unanswered) Error() string { return u.GetText() }

// Is is for errors.Is.
func (u unanswered) Is(target error) bool {
	switch u.GetWhy() {
	case tdpdv1.Why_WHY_NO_BGP:
		return target == ErrNoBGP
	case tdpdv1.Why_WHY_NO_NEIGHBOR:
		return target == ErrNoNeighbor
	}
	return false
}
