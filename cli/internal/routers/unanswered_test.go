package routers

import (
	"errors"
	"testing"
)

// TestUnanswered: a code counts, and never the words beside it.
func TestUnanswered(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][2]bool{
		`{"router": "r1", "unanswered": {"why": "WHY_NO_BGP", "text": "nobody speaks here"}}`:             {true, false},
		`{"router": "r1", "unanswered": {"why": "WHY_NO_NEIGHBOR", "text": "nobody speaks here"}}`:        {false, true},
		`{"router": "r1", "unanswered": {"why": "WHY_OF_A_LATER_RELEASE", "text": "nobody speaks here"}}`: {},
		`{"error": "the router does not speak BGP"}`:                                                      {},
	} {
		_, err := Decode("socket", []byte(text))
		if err == nil || errors.Is(err, ErrNoBGP) != want[0] || errors.Is(err, ErrNoNeighbor) != want[1] {
			t.Errorf("%s: %v", text, err)
		}
		if want != [2]bool{} && err.Error() != "nobody speaks here" {
			t.Errorf("%s: says %v", text, err)
		}
	}
	if _, err := Decode("socket", []byte(`{"router": "r1", "status": {}}`)); err != nil {
		t.Error(err)
	}
}
